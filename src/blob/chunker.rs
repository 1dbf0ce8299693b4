//! Content-defined cutting: FastCDC (Xia et al., IEEE TPDS 31/9, 2020), level 3 normalization,
//! with a gear table derived from a key so that cut points tell a store nothing about content.

use fastcdc::v2020::{FastCDC, Normalization};

use crate::base::limits::{CHUNK_LEN_AVG, CHUNK_LEN_MAX, CHUNK_LEN_MIN};

/// Cuts content into chunks of [`CHUNK_LEN_MIN`] to [`CHUNK_LEN_MAX`] bytes (the last may be shorter).
#[derive(Clone, Copy)]
pub struct Chunker {
    seed: u64,
}

impl Chunker {
    /// A chunker with the workspace's seed ([`Keys::chunk_seed`](crate::crypto::Keys::chunk_seed)).
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The length of the first chunk of `window`, or `None` when more bytes are needed to decide.
    ///
    /// `window` is what follows the last cut; `at_end` says that the content ends with it. A window
    /// of [`CHUNK_LEN_MAX`] bytes always decides; an empty window never does. The cut depends on
    /// the content alone, not on how it was handed in.
    pub fn next_cut(&self, window: &[u8], at_end: bool) -> Option<usize> {
        if window.is_empty() || (window.len() < CHUNK_LEN_MAX && !at_end) {
            return None;
        }
        if window.len() <= CHUNK_LEN_MIN {
            return Some(window.len());
        }
        let (min, avg, max) = (CHUNK_LEN_MIN, CHUNK_LEN_AVG, CHUNK_LEN_MAX);
        let cdc = FastCDC::with_level_and_seed(window, min, avg, max, Normalization::Level3, self.seed);
        Some(cdc.cut(0, window.len()).1)
    }
}
