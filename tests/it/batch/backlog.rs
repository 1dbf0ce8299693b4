//! Lists of what is to be processed: whole, cut, and foreign.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use kura::apps::batch::{
    BacklogManager, BacklogReader, BacklogWriter, BatchError, FileInfo, FilePath, Modified, ScanReport,
};
use kura::base::ids::WorkspaceId;
use kura::crypto::Keys;

use super::rig::Rig;

fn files(count: u64) -> Vec<FileInfo> {
    let odd: [&[u8]; 8] = [
        b"a\nb",
        b"#?%.csv",
        b"space at the end ",
        b"\xff\xfe",
        "e\u{301}".as_bytes(),
        &[b'x'; 255],
        b"\"quoted\"\\",
        b"d/e",
    ];
    (0..count)
        .map(|number| FileInfo {
            path: FilePath::new([odd[number as usize % 8], b".", number.to_string().as_bytes()].concat()).unwrap(),
            size: number,
            modified: Some(Modified { unix_ns: number as i64, step_ns: 1 }),
            etag: number.is_multiple_of(3).then(|| format!("\"{number}\"")),
            is_dir: false,
        })
        .collect()
}

fn plain(count: u64) -> Vec<u8> {
    let mut writer = BacklogWriter::new(Vec::new());
    files(count).iter().for_each(|file| writer.push(file).unwrap());
    writer.finish(ScanReport { backlogged: count, ..ScanReport::default() }).unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<FileInfo>, BatchError> {
    BacklogReader::new(bytes).collect()
}

#[test]
fn what_was_written_is_read_back() {
    for count in [0, 1, 1000] {
        assert_eq!(read(&plain(count)).unwrap(), files(count));
    }
}

#[test]
fn a_list_that_was_cut_anywhere_is_refused() {
    let whole = plain(20);
    for len in 0..whole.len() {
        assert!(read(&whole[..len]).is_err(), "cut to {len} bytes of {}", whole.len());
    }
    let text = String::from_utf8(zcat(&whole)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for kept in 0..lines.len() {
        assert!(read(&gzip(&(lines[..kept].join("\n") + "\n"))).is_err(), "cut to {kept} lines");
    }
}

fn zcat(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    std::io::copy(&mut flate2::bufread::MultiGzDecoder::new(bytes), &mut text).unwrap();
    text
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn what_is_no_backlog_is_refused() {
    let entry = r#"{"path":"a","size":1}"#;
    let foreign = [
        Vec::new(),
        b"no gzip".to_vec(),
        gzip(""),
        gzip("{}\n"),
        gzip("{\"path\":\n"),
        gzip(&format!("{entry}\n")),
        gzip("{\"path\":\"../a\",\"size\":1}\n"),
        gzip("{\"path\":\"/a\",\"size\":1}\n"),
        gzip(&"x".repeat(1 << 20)),
        [plain(2), gzip(&format!("{entry}\n"))].concat(),
        [plain(2), plain(2)].concat(),
        gzip(&String::from_utf8(zcat(&plain(3))).unwrap().replacen("\"size\":1", "\"size\":7", 1)),
    ];
    for (number, bytes) in foreign.iter().enumerate() {
        assert!(read(bytes).is_err(), "foreign list {number}");
    }
}

#[test]
fn members_of_gzip_are_read_as_one() {
    let text = String::from_utf8(zcat(&plain(10))).unwrap();
    let lines: Vec<String> = text.lines().map(|line| gzip(&format!("{line}\n"))).map(hex).collect();
    let joined: Vec<u8> = lines.iter().flat_map(|line| unhex(line)).collect();
    assert_eq!(read(&joined).unwrap(), files(10));
}

fn hex(bytes: Vec<u8>) -> String {
    data_encoding::HEXLOWER.encode(&bytes)
}

fn unhex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

#[test]
fn a_sealed_list_shows_nothing_and_is_counted_by_its_end() {
    let rig = Rig::new();
    std::fs::create_dir_all(&rig.setup.dir).unwrap();
    let path = rig.setup.dir.join("backlog");
    let manager = BacklogManager { disk: &*rig.setup.disk, keys: &rig.setup.keys };
    assert!(matches!(manager.read(&path).err(), Some(BatchError::NoBacklog)));
    let count = 20_000;
    let scan = ScanReport { run: 7, scanned: count, backlogged: count, ..ScanReport::default() };
    let write = |manager: &BacklogManager<'_>| {
        manager.write(&path, |backlog| {
            files(count).iter().for_each(|file| backlog.push(file).unwrap());
            Ok(scan)
        })
    };
    write(&manager).unwrap();
    assert_eq!(manager.summary(&path).unwrap(), scan);
    let whole = std::fs::read(&path).unwrap();
    assert!(!whole.windows(6).any(|bytes| bytes == b"quoted"));
    assert_eq!(manager.read(&path).unwrap().map(Result::unwrap).collect::<Vec<_>>(), files(count));
    for len in [0, 10, 16, 20, whole.len() / 2, whole.len() - 100, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(manager.summary(&path).is_err(), "cut to {len}");
        assert!(manager.read(&path).unwrap().any(|entry| entry.is_err()), "cut to {len}");
    }
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    assert!(manager.read(&path).unwrap().any(|entry| entry.is_err()));
    std::fs::write(&path, &whole).unwrap();
    let stranger = Keys::ephemeral(WorkspaceId::random());
    assert!(BacklogManager { disk: &*rig.setup.disk, keys: &stranger }.summary(&path).is_err());
}
