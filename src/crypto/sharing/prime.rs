//! The integers modulo p = 2^256 − 189, the largest prime below 2^256. Elements are little-endian, below p.

use std::hint::black_box;

use zeroize::Zeroizing;

use super::{Arithmetic, SHARE_LEN_UNIT};
use crate::base::random;

/// The arithmetic modulo p.
pub struct Prime;

/// Four digits of 64 bits, the lowest first.
type Limbs = [u64; 4];

const ELEMENT_LEN: usize = SHARE_LEN_UNIT;
/// Bytes of secret in an element: any of them is below p.
pub const SECRET_LEN: usize = ELEMENT_LEN - 1;
/// 2^256 − p.
const GAP: u64 = 189;
const P: Limbs = [GAP.wrapping_neg(), u64::MAX, u64::MAX, u64::MAX];
/// p − 2, the power that inverts.
const P_LESS_TWO: Limbs = [P[0] - 2, P[1], P[2], P[3]];

fn load(bytes: &[u8; ELEMENT_LEN]) -> Limbs {
    let mut limbs = [0; 4];
    for (limb, bytes) in limbs.iter_mut().zip(bytes.as_chunks().0) {
        *limb = u64::from_le_bytes(*bytes);
    }
    limbs
}

fn store(limbs: Limbs) -> [u8; ELEMENT_LEN] {
    let mut bytes = [0; ELEMENT_LEN];
    for (bytes, limb) in bytes.as_chunks_mut().0.iter_mut().zip(limbs) {
        *bytes = limb.to_le_bytes();
    }
    bytes
}

/// The low and the high half of `a · b + c + d`, which always fits.
#[expect(clippy::cast_possible_truncation, reason = "splits a number into its halves")]
fn multiply_add(a: u64, b: u64, c: u64, d: u64) -> (u64, u64) {
    let sum = u128::from(a) * u128::from(b) + u128::from(c) + u128::from(d);
    (sum as u64, (sum >> 64) as u64)
}

/// `a + b` and the carry.
fn add_small(a: Limbs, b: u64) -> (Limbs, u64) {
    let mut carry = b;
    let sum = a.map(|limb| {
        let (sum, over) = limb.overflowing_add(carry);
        carry = u64::from(over);
        sum
    });
    (sum, carry)
}

/// Brings `carry · 2^256 + a`, which is below 2p, below p.
fn reduce(a: Limbs, carry: u64) -> Limbs {
    let (less, over) = add_small(a, GAP);
    let mask = black_box((carry | over).wrapping_neg());
    std::array::from_fn(|i| (less[i] & mask) | (a[i] & !mask))
}

fn add(a: Limbs, b: Limbs) -> Limbs {
    let mut sum = [0; 4];
    let mut carry = 0;
    for i in 0..4 {
        (sum[i], carry) = multiply_add(1, a[i], b[i], carry);
    }
    reduce(sum, carry)
}

/// `p − a`.
fn negate(a: Limbs) -> Limbs {
    let mut borrow = 0;
    std::array::from_fn(|i| {
        let (difference, under) = P[i].overflowing_sub(a[i]);
        let (difference, under_too) = difference.overflowing_sub(borrow);
        borrow = u64::from(under | under_too);
        difference
    })
}

fn multiply(a: Limbs, b: Limbs) -> Limbs {
    let mut wide = [0; 8];
    for i in 0..4 {
        let mut carry = 0;
        for j in 0..4 {
            (wide[i + j], carry) = multiply_add(a[i], b[j], wide[i + j], carry);
        }
        wide[i + 4] = carry;
    }
    // 2^256 is 189 here: twice, as the first time leaves up to 190 · 2^256.
    let mut folded = [0; 4];
    let mut carry = 0;
    for i in 0..4 {
        (folded[i], carry) = multiply_add(wide[i + 4], GAP, wide[i], carry);
    }
    let (folded, carry) = add_small(folded, carry * GAP);
    reduce(folded, carry)
}

impl Arithmetic for Prime {
    type Scalar = Limbs;

    fn scalar(id: u16) -> Limbs {
        [id.into(), 0, 0, 0]
    }

    fn one() -> Limbs {
        [1, 0, 0, 0]
    }

    fn sub(a: Limbs, b: Limbs) -> Limbs {
        add(a, reduce(negate(b), 0))
    }

    fn mul(a: Limbs, b: Limbs) -> Limbs {
        multiply(a, b)
    }

    /// `a^(p − 2)`; the power is no secret.
    fn invert(a: Limbs) -> Limbs {
        let mut power = Self::one();
        for bit in (0..256).rev() {
            power = multiply(power, power);
            if (P_LESS_TWO[bit / 64] >> (bit % 64)) & 1 == 1 {
                power = multiply(power, a);
            }
        }
        power
    }

    fn random(out: &mut [u8]) {
        random::fill(out);
        for element in out.as_chunks_mut().0 {
            // Once in 2^248 elements.
            while reduce(load(element), 0) != load(element) {
                random::fill(element);
            }
        }
    }

    fn embed(secret: &[u8], out: &mut [u8]) {
        out.fill(0);
        for (element, secret) in out.as_chunks_mut::<ELEMENT_LEN>().0.iter_mut().zip(secret.chunks(SECRET_LEN)) {
            element[..secret.len()].copy_from_slice(secret);
        }
    }

    fn extract(elements: &[u8], out: &mut [u8]) -> bool {
        let mut high = 0;
        for (element, out) in elements.as_chunks::<ELEMENT_LEN>().0.iter().zip(out.chunks_mut(SECRET_LEN)) {
            out.copy_from_slice(&element[..out.len()]);
            high |= element[SECRET_LEN];
        }
        high == 0
    }

    fn horner(sum: &mut [u8], x: Limbs, add_to: &[u8]) {
        let x = Zeroizing::new(x);
        for (sum, value) in sum.as_chunks_mut().0.iter_mut().zip(add_to.as_chunks().0) {
            *sum = store(add(multiply(load(sum), *x), load(value)));
        }
    }

    fn accumulate(sum: &mut [u8], weight: Limbs, values: &[u8]) {
        let weight = Zeroizing::new(weight);
        for (sum, value) in sum.as_chunks_mut().0.iter_mut().zip(values.as_chunks().0) {
            *sum = store(add(load(sum), multiply(load(value), *weight)));
        }
    }
}
