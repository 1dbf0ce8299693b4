//! Sharing itself: against shares made by another program, against another way to multiply, and by its laws.

use data_encoding::HEXLOWER;
use kura::crypto::sharing::{Field, SHARE_LEN_UNIT};
use proptest::prelude::*;

use super::support::FIELDS;

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// Made with tables of logarithms, in Python; the threshold is 3.
const GF256_SECRET: &str = "67691323e8bae278f30d42051ab40c346fa95c0b02a866e98d0c0932b63c5549";
const GF256_SHARES: [(u16, &str); 4] = [
    (1, "38f2ae8569c2681f781e4a0efa91ff152a259d1cc65d318c03785862fac82028"),
    (7, "a0d150c23f44ce81f11a58d0b3368bbe2d3265e5880b6e7e9ee5731df5548a52"),
    (200, "d44a0f5ab2ad356430f3671b1854a7367cbc2da64755286971a1d6866f8baf7b"),
    (255, "281af0f40027f98fb9a0a3834b2132073348e412378d19885f8d31b2b52ddfd8"),
];
/// Made with Python's integers; the threshold is 3.
const PRIME_SECRET: &str = "97699b7cc0a0ed83b78b2002f0e57046ee561be6942bec256fe201abba552a9e\
                            5b11618c2e44027877d0cd0921ed166b9f176f50587fc91e7534dd2946db";
const PRIME_SHARES: [(u16, &str); 4] = [
    (
        1,
        "0dd44e978e0047cf3900cc8b98577bcff13d28fb0636196db84bd89d9b1750f5\
         fd60da37b5892d0f63afec8fbb67eb0dec882da4f3628bca025c19ae93547240",
    ),
    (
        7,
        "f02ae4767e462dc57f1b94bd36860db4212eb77cbab30db7549efad9ebf9abd0\
         89f179a15500cc4a60370faca7071272d3c9e4b018b204c6c22b86e888464043",
    ),
    (
        300,
        "f19a3aa94f9d0c76803b490d567603c8a9692704595e47e95169151096f96b42\
         1784ab94dee3e7cae80b0aa74b57b67761f02f7c790bc145e139366ebdd45327",
    ),
    (
        4096,
        "d8caccbda18c3895ec1fbf4b5944fdddcb25befdbc08a6062d9f77cf99a4b0c6\
         3705366f8712d32580437c4176bf1b617572b6572d0c847f5233ac038e59336d",
    ),
];

#[test]
fn shares_of_another_program_give_its_secret() {
    for (field, secret, shares) in
        [(Field::Gf256, GF256_SECRET, GF256_SHARES), (Field::Prime, PRIME_SECRET, PRIME_SHARES)]
    {
        let (secret, shares) = (hex(secret), shares.map(|(id, share)| (id, hex(share))));
        for left_out in 0..4 {
            let chosen: Vec<_> = (0..4).filter(|i| *i != left_out).collect();
            let ids: Vec<u16> = chosen.iter().map(|i| shares[*i].0).collect();
            let given: Vec<&[u8]> = chosen.iter().map(|i| &shares[*i].1[..]).collect();
            let mut found = vec![0; secret.len()];
            assert!(field.combine(&ids, &given, &mut found));
            assert_eq!(found, secret);
            let mut fourth = vec![0; shares[left_out].1.len()];
            field.share_at(&ids, &given, shares[left_out].0, &mut fourth);
            assert_eq!(fourth, shares[left_out].1);
        }
    }
}

/// Randomness as `vsss_rs` wants it.
struct Randomness;

impl rand_core::TryRng for Randomness {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_le_bytes(kura::base::random::bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(kura::base::random::number())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill_with(|| kura::base::random::bytes::<1>()[0]);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Randomness {}

/// A share of `vsss_rs` is its id and then the bytes.
#[test]
fn an_audited_library_combines_our_shares_and_we_combine_its() {
    let secret: Vec<u8> = kura::base::random::bytes::<SHARE_LEN_UNIT>().to_vec();
    for (threshold, count) in [(2, 2), (2, 7), (3, 5), (8, 20), (64, 64)] {
        let polynomials = Field::Gf256.split(&secret, secret.len(), threshold);
        let ours = (0..count).map(|at| {
            let id = (251 * at % 255 + 1) as u8;
            let mut share = vec![0; secret.len()];
            polynomials.share(id.into(), &mut share);
            [&[id][..], &share].concat()
        });
        assert_eq!(vsss_rs::Gf256::combine_bytes_iter(ours.take(threshold)).unwrap(), secret);
        let theirs = vsss_rs::Gf256::split_bytes(threshold, count, &secret, Randomness).unwrap();
        let chosen = &theirs[count - threshold..];
        let ids: Vec<u16> = chosen.iter().map(|share| share[0].into()).collect();
        let shares: Vec<&[u8]> = chosen.iter().map(|share| &share[1..]).collect();
        let mut found = vec![0; secret.len()];
        assert!(Field::Gf256.combine(&ids, &shares, &mut found));
        assert_eq!(found, secret);
    }
}

/// FIPS 197, section 4.2: {57} times {02}, {13} and {83}; a line through 0 gives products.
#[test]
fn products_are_those_of_the_standard() {
    for (factor, product) in [(0x02, 0xae), (0x13, 0xfe), (0x83, 0xc1)] {
        let mut out = [0; 1].repeat(SHARE_LEN_UNIT);
        let shares = [vec![0x57; SHARE_LEN_UNIT], vec![0x57 ^ 0xae; SHARE_LEN_UNIT]];
        // f(x) = 57 x: f(1) = 57, f(3) = 57 + ae.
        Field::Gf256.share_at(&[1, 3], &shares, factor, &mut out);
        assert_eq!(out, [product; SHARE_LEN_UNIT]);
    }
}

/// Multiplies the way one does on paper, bit by bit.
fn multiply_slowly(a: u8, b: u8) -> u8 {
    let mut wide = 0u16;
    for bit in 0..8 {
        wide ^= if b >> bit & 1 == 1 { u16::from(a) << bit } else { 0 };
    }
    for bit in (8..15).rev() {
        wide ^= if wide >> bit & 1 == 1 { 0x11b << (bit - 8) } else { 0 };
    }
    wide as u8
}

#[test]
fn every_product_is_right() {
    for a in 0..=255u8 {
        let line = [vec![a; SHARE_LEN_UNIT], vec![multiply_slowly(a, 2); SHARE_LEN_UNIT]];
        for b in 3..=255u8 {
            let mut out = vec![0; SHARE_LEN_UNIT];
            Field::Gf256.share_at(&[1, 2], &line, b.into(), &mut out);
            assert_eq!(out[0], multiply_slowly(a, b), "{a} times {b}");
            assert!(out.iter().all(|byte| *byte == out[0]));
        }
    }
}

#[test]
fn the_prime_field_wraps_around_where_it_should() {
    let p_less = |less: u8| {
        let mut bytes = vec![0xff; 32];
        // p is 2^256 - 189.
        bytes[0] = 0u8.wrapping_sub(189).wrapping_sub(less);
        bytes
    };
    let mut out = vec![0; 32];
    // f(x) = -x.
    Field::Prime.share_at(&[1, 2], &[p_less(1), p_less(2)], 3, &mut out);
    assert_eq!(out, p_less(3));
    Field::Prime.share_at(&[1, 2], &[p_less(1), p_less(2)], 0, &mut out);
    assert_eq!(out, vec![0; 32]);
    // f(x) = x - 2: the secret is p - 2, which is no 31 bytes.
    let mut zero = vec![0; 32];
    Field::Prime.share_at(&[1, 2], &[p_less(1), vec![0; 32]], 0, &mut zero);
    assert_eq!(zero, p_less(2));
    let mut secret = vec![0; 31];
    assert!(!Field::Prime.combine(&[1, 2], &[p_less(1), vec![0; 32]], &mut secret));
}

/// 255 degrees of freedom: mean 255, standard deviation 22.6. Eight of those above come once in 10^12.
pub const CHI_SQUARE_MAX: f64 = 255.0 + 8.0 * 22.6;

pub fn chi_square(bytes: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0u64; 256];
    bytes.for_each(|byte| counts[usize::from(byte)] += 1);
    let expected = counts.iter().sum::<u64>() as f64 / 256.0;
    counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum()
}

/// Shares of nothing at id 1, with a threshold of 2, are the leading coefficients themselves.
#[test]
fn coefficients_are_uniform_zero_and_the_leading_ones_included() {
    for field in FIELDS {
        let mut share = vec![0; 1 << 20];
        field.split(&[], share.len(), 2).share(1, &mut share);
        assert!(chi_square(share.iter().copied()) < CHI_SQUARE_MAX, "{field:?}");
        // The highest bytes of elements alone, too.
        assert!(chi_square(share.chunks(32).map(|element| element[31])) < CHI_SQUARE_MAX, "{field:?}");
        // It would show if one value never came, as zero in programs that want a true degree.
        assert!(chi_square(share.iter().map(|byte| (*byte).max(1))) > CHI_SQUARE_MAX);
    }
}

#[test]
fn too_few_shares_do_not_give_the_secret() {
    for field in FIELDS {
        let secret: Vec<u8> = (0..field.secret_len(64) as u8).collect();
        let polynomials = field.split(&secret, 64, 3);
        let share = |id| {
            let mut share = vec![0; 64];
            polynomials.share(id, &mut share);
            share
        };
        let mut found = vec![0; secret.len()];
        let wrong = !field.combine(&[1, 2], &[share(1), share(2)], &mut found) || found != secret;
        assert!(wrong, "{field:?}");
    }
}

proptest! {
    #[test]
    fn any_shares_as_many_as_the_threshold_give_the_secret(
        secret in prop::collection::vec(any::<u8>(), 1..200),
        mut ids in prop::collection::hash_set(1..=255u16, 2..12).prop_map(Vec::from_iter),
        threshold in 2..12usize,
        start in any::<prop::sample::Index>(),
        prime in any::<bool>(),
    ) {
        let field = if prime { Field::Prime } else { Field::Gf256 };
        let threshold = threshold.min(ids.len());
        let share_len = (0..).map(|units| units * SHARE_LEN_UNIT).find(|len| field.secret_len(*len) >= secret.len()).unwrap();
        let polynomials = field.split(&secret, share_len, threshold);
        let shift = start.index(ids.len());
        ids.rotate_left(shift);
        let shares: Vec<Vec<u8>> = ids.iter().map(|id| {
            let mut share = vec![0; share_len];
            polynomials.share(*id, &mut share);
            share
        }).collect();
        let mut found = vec![0; field.secret_len(share_len)];
        prop_assert!(field.combine(&ids[..threshold], &shares[..threshold], &mut found));
        prop_assert_eq!(&found[..secret.len()], &secret[..]);
        prop_assert!(found[secret.len()..].iter().all(|byte| *byte == 0));
        let mut other = vec![0; share_len];
        for (id, share) in ids.iter().zip(&shares).skip(threshold) {
            field.share_at(&ids[..threshold], &shares[..threshold], *id, &mut other);
            prop_assert_eq!(&other, share);
        }
    }
}
