//! GF(2^8) modulo x^8 + x^4 + x^3 + x + 1. Buffers are worked eight elements at a time, in one word.

use std::hint::black_box;

use super::Arithmetic;
use crate::base::random;

/// The arithmetic of bytes.
pub struct Gf256;

/// The polynomial without its leading term.
const POLYNOMIAL: u64 = 0x1b;
/// One bit in each byte of a word.
const LOWEST: u64 = 0x0101_0101_0101_0101;
const ALL_BUT_HIGHEST: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// For each bit of the byte, lowest first, a word of all ones or all zeros.
fn masks(x: u8) -> [u64; 8] {
    black_box(std::array::from_fn(|bit| u64::from((x >> bit) & 1).wrapping_neg()))
}

/// Eight elements times the element that `masks` is of.
fn multiply(mut word: u64, masks: &[u64; 8]) -> u64 {
    let mut product = 0;
    for mask in masks {
        product ^= word & mask;
        word = ((word & ALL_BUT_HIGHEST) << 1) ^ (((word >> 7) & LOWEST) * POLYNOMIAL);
    }
    product
}

impl Arithmetic for Gf256 {
    type Scalar = u8;

    fn scalar(id: u16) -> u8 {
        id.to_le_bytes()[0]
    }

    fn one() -> u8 {
        1
    }

    fn sub(a: u8, b: u8) -> u8 {
        a ^ b
    }

    fn mul(a: u8, b: u8) -> u8 {
        multiply(a.into(), &masks(b)).to_le_bytes()[0]
    }

    /// `a^254`.
    fn invert(a: u8) -> u8 {
        let mut power = a;
        for _ in 0..6 {
            power = Self::mul(Self::mul(power, power), a);
        }
        Self::mul(power, power)
    }

    fn random(out: &mut [u8]) {
        random::fill(out);
    }

    fn embed(secret: &[u8], out: &mut [u8]) {
        let (front, rest) = out.split_at_mut(secret.len());
        front.copy_from_slice(secret);
        rest.fill(0);
    }

    fn extract(elements: &[u8], out: &mut [u8]) -> bool {
        out.copy_from_slice(&elements[..out.len()]);
        true
    }

    fn horner(sum: &mut [u8], x: u8, add: &[u8]) {
        let masks = masks(x);
        for (sum, add) in sum.as_chunks_mut().0.iter_mut().zip(add.as_chunks().0) {
            *sum = (multiply(u64::from_le_bytes(*sum), &masks) ^ u64::from_le_bytes(*add)).to_le_bytes();
        }
    }

    fn accumulate(sum: &mut [u8], weight: u8, values: &[u8]) {
        let masks = masks(weight);
        for (sum, value) in sum.as_chunks_mut().0.iter_mut().zip(values.as_chunks().0) {
            *sum = (u64::from_le_bytes(*sum) ^ multiply(u64::from_le_bytes(*value), &masks)).to_le_bytes();
        }
    }
}
