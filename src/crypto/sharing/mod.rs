//! Shamir's secret sharing: any `threshold` shares give the secret back, fewer say nothing about it.
//!
//! A secret is a run of field elements; each is the value at 0 of a polynomial of its own, whose other coefficients
//! are uniformly random, the leading one included. The share of id *x* holds the values at *x*. All arithmetic takes
//! the same time whatever the secrets, shares and ids are: no tables, no branches on them.

mod gf256;
mod prime;

use zeroize::{Zeroize, Zeroizing};

use gf256::Gf256;
use prime::Prime;

/// The finite field that shares are made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// GF(2^8) with the polynomial of AES, 0x11B: one byte is one element. Ids 1 to 255.
    Gf256,
    /// The integers modulo 2^256 − 189: 31 bytes of secret are an element of 32 bytes. Ids from 1.
    Prime,
}

/// Lengths of shares are multiples of this many bytes, in either field.
pub const SHARE_LEN_UNIT: usize = 32;

/// What a field can do; buffers hold elements one after another.
trait Arithmetic {
    /// One element.
    type Scalar: Copy + Zeroize;
    fn scalar(id: u16) -> Self::Scalar;
    fn one() -> Self::Scalar;
    fn sub(a: Self::Scalar, b: Self::Scalar) -> Self::Scalar;
    fn mul(a: Self::Scalar, b: Self::Scalar) -> Self::Scalar;
    /// The inverse; 0 for 0.
    fn invert(a: Self::Scalar) -> Self::Scalar;
    /// Uniformly random elements.
    fn random(out: &mut [u8]);
    /// Secret bytes to elements; what they do not fill is zero.
    fn embed(secret: &[u8], out: &mut [u8]);
    /// Elements to secret bytes; false when one of them is not such a secret.
    fn extract(elements: &[u8], out: &mut [u8]) -> bool;
    /// `sum = sum · x + add`, element by element.
    fn horner(sum: &mut [u8], x: Self::Scalar, add: &[u8]);
    /// `sum = sum + weight · values`, element by element.
    fn accumulate(sum: &mut [u8], weight: Self::Scalar, values: &[u8]);
}

/// The polynomials of one secret, wiped on drop.
pub struct Polynomials {
    field: Field,
    /// From the secret itself to the leading coefficients.
    coefficients: Vec<Zeroizing<Vec<u8>>>,
}

impl Field {
    /// The number that stands for it in files.
    pub fn code(self) -> u8 {
        match self {
            Field::Gf256 => 1,
            Field::Prime => 2,
        }
    }

    /// The field that has this number.
    pub fn from_code(code: u8) -> Option<Self> {
        [Field::Gf256, Field::Prime].into_iter().find(|field| field.code() == code)
    }

    /// The largest id of a share.
    pub fn id_max(self) -> u16 {
        match self {
            Field::Gf256 => u8::MAX.into(),
            Field::Prime => u16::MAX,
        }
    }

    /// How many bytes of secret a share of `share_len` bytes (a multiple of [`SHARE_LEN_UNIT`]) stands for.
    pub fn secret_len(self, share_len: usize) -> usize {
        match self {
            Field::Gf256 => share_len,
            Field::Prime => share_len / SHARE_LEN_UNIT * prime::SECRET_LEN,
        }
    }

    /// Random polynomials for a secret, so that `threshold` shares of `share_len` bytes will give it back.
    ///
    /// The secret is at most `secret_len(share_len)` bytes; zeros follow it.
    pub fn split(self, secret: &[u8], share_len: usize, threshold: usize) -> Polynomials {
        let mut first = Zeroizing::new(vec![0; share_len]);
        match self {
            Field::Gf256 => Gf256::embed(secret, &mut first),
            Field::Prime => Prime::embed(secret, &mut first),
        }
        let random = |_| {
            let mut coefficients = Zeroizing::new(vec![0; share_len]);
            match self {
                Field::Gf256 => Gf256::random(&mut coefficients),
                Field::Prime => Prime::random(&mut coefficients),
            }
            coefficients
        };
        let coefficients = std::iter::once(first).chain((1..threshold).map(random)).collect();
        Polynomials { field: self, coefficients }
    }

    /// The secret that shares give: `ids[i]` is the id of `shares[i]`. As many as the threshold, no id twice, none 0.
    /// False when they cannot be shares of a secret.
    #[must_use]
    pub fn combine(self, ids: &[u16], shares: &[impl AsRef<[u8]>], secret: &mut [u8]) -> bool {
        let Some(first) = shares.first() else { return false };
        let mut elements = Zeroizing::new(vec![0; first.as_ref().len()]);
        self.share_at(ids, shares, 0, &mut elements);
        match self {
            Field::Gf256 => Gf256::extract(&elements, secret),
            Field::Prime => Prime::extract(&elements, secret),
        }
    }

    /// The share of id `at` that follows from as many others as the threshold; `at` 0 is the secret's elements.
    pub fn share_at(self, ids: &[u16], shares: &[impl AsRef<[u8]>], at: u16, out: &mut [u8]) {
        match self {
            Field::Gf256 => interpolate::<Gf256>(ids, shares, at, out),
            Field::Prime => interpolate::<Prime>(ids, shares, at, out),
        }
    }
}

impl Polynomials {
    /// The share of an id, which must not be 0.
    pub fn share(&self, id: u16, out: &mut [u8]) {
        match self.field {
            Field::Gf256 => evaluate::<Gf256>(&self.coefficients, id, out),
            Field::Prime => evaluate::<Prime>(&self.coefficients, id, out),
        }
    }
}

fn evaluate<A: Arithmetic>(coefficients: &[Zeroizing<Vec<u8>>], id: u16, out: &mut [u8]) {
    let mut x = A::scalar(id);
    out.fill(0);
    for coefficient in coefficients.iter().rev() {
        A::horner(out, x, coefficient);
    }
    x.zeroize();
}

/// Lagrange's interpolation: the sum of each share times the product of `(at − xj) / (xi − xj)`.
fn interpolate<A: Arithmetic>(ids: &[u16], shares: &[impl AsRef<[u8]>], at: u16, out: &mut [u8]) {
    out.fill(0);
    let at = A::scalar(at);
    for (i, (id, share)) in ids.iter().zip(shares).enumerate() {
        let (mut above, mut below) = (A::one(), A::one());
        for (_, other) in ids.iter().enumerate().filter(|(j, _)| *j != i) {
            above = A::mul(above, A::sub(at, A::scalar(*other)));
            below = A::mul(below, A::sub(A::scalar(*id), A::scalar(*other)));
        }
        let mut weight = A::mul(above, A::invert(below));
        A::accumulate(out, weight, share.as_ref());
        weight.zeroize();
    }
}
