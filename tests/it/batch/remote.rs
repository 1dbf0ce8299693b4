//! Every protocol against a real server: one suite for all, and what each has of its own.

use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kura::apps::batch::{
    BatchError, Code, DavAddress, DavFiles, FileInfo, FilePath, FileSystem, FtpAddress, FtpFiles, FtpSecurity,
    LocalFiles, S3Files, Sameness, SftpFiles, SshAddress, TempFile, Url, WorkDir,
};
use kura::store::Bucket;

use super::rig::{Rig, balanced, marking};
use super::servers;
use super::webdav::scripted;
use crate::s3_server::{Fault, S3Server};

/// A file system and the way round it.
struct Side<'a> {
    files: Arc<dyn FileSystem>,
    put: &'a dyn Fn(&str, &[u8]),
    get: &'a dyn Fn(&str) -> Vec<u8>,
    /// All names there are, temporary ones too.
    names: &'a dyn Fn() -> Vec<String>,
}

pub(super) fn path(text: &str) -> FilePath {
    FilePath::new(text).unwrap()
}

pub(super) fn download(files: &dyn FileSystem, name: &str) -> Result<(FileInfo, Vec<u8>), BatchError> {
    let mut content = Vec::new();
    let info = files.download(&path(name), &mut content)?;
    Ok((info, content))
}

pub(super) fn temporary(work: &WorkDir, content: &[u8]) -> TempFile {
    let mut file = work.file().unwrap();
    file.fill(|to| to.write_all(content).map_err(|error| BatchError::of_io("test", &error))).unwrap();
    file
}

/// What every file system has to do.
fn suite(side: &Side<'_>) {
    let files = &*side.files;
    let work = WorkDir::make(None).unwrap();
    let large = crate::workspace_rig::noise(3 << 20);
    let odd = ["sp ace", "#?%41&+=;,@:", "e\u{301}", "蔵", "'\"\\", "<>&amp;", "-rf", "~", "*"];
    (side.put)("empty", b"");
    (side.put)("d/e/large", &large);
    for name in odd {
        (side.put)(&format!("odd/{name}"), name.as_bytes());
    }
    assert_eq!(files.stat(&path("missing")).unwrap_err().code(), Code::Vanished);
    assert_eq!(download(files, "missing").unwrap_err().code(), Code::Vanished);
    assert_eq!(download(files, "missing/deeper").unwrap_err().code(), Code::Vanished);
    let (info, content) = download(files, "d/e/large").unwrap();
    assert_eq!((info.size, content == large), (large.len() as u64, true));
    assert_eq!(files.stat(&path("d/e/large")).unwrap().compare(&info), Sameness::Same);
    assert_eq!(download(files, "empty").unwrap().1, b"");
    // Replaced by something longer, shorter, empty.
    for content in [&large[..], b"short", b"", &large[..100_000]] {
        let expected = files.stat(&path("d/e/large")).unwrap();
        let now = files.replace(&expected, &temporary(&work, content)).unwrap();
        assert_eq!((now.size, (side.get)("d/e/large") == content), (content.len() as u64, true));
        assert_eq!(files.stat(&path("d/e/large")).unwrap().compare(&now), Sameness::Same);
    }
    // Somebody else was there meanwhile; somebody took it away.
    let expected = files.stat(&path("empty")).unwrap();
    (side.put)("empty", b"theirs");
    assert_eq!(files.replace(&expected, &temporary(&work, b"x")).unwrap_err().code(), Code::SourceChanged);
    assert_eq!((side.get)("empty"), b"theirs");
    let expected = FileInfo { path: path("missing"), ..expected };
    assert_eq!(files.replace(&expected, &temporary(&work, b"x")).unwrap_err().code(), Code::Vanished);
    flow(side, odd.len() as u64 + 2);
    for name in odd {
        assert_eq!((side.get)(&format!("odd/{name}")), format!("mark:{name}").as_bytes(), "{name}");
    }
    assert!(!(side.names)().iter().any(|name| name.contains(".kura-part-")), "no temporary file is left");
}

/// The whole flow, twice.
fn flow(side: &Side<'_>, count: u64) {
    let rig = Rig::new();
    let first = rig.run(&marking(), side.files.clone());
    assert_eq!((first.scan.scanned, first.done, first.failed), (count, count, 0), "{first:?}");
    let second = rig.run(&marking(), side.files.clone());
    assert_eq!((second.scan.scanned, second.scan.skipped), (count, count), "{second:?}");
    (side.put)("d/e/large", b"new content");
    let third = rig.run(&marking(), side.files.clone());
    assert_eq!((third.scan.backlogged, third.done), (1, 1), "{third:?}");
    assert_eq!((side.get)("d/e/large"), b"mark:new content");
}

/// The suite over a server whose files lie in a directory here.
pub(super) fn suite_in(files: Arc<dyn FileSystem>, dir: &Path) {
    let put = |name: &str, content: &[u8]| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        // The server may be another user.
        for (path, mode) in [(path.parent().unwrap(), 0o777), (&*path, 0o666)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    let get = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let names = || crate::cli::support::tree(dir).into_iter().map(|(name, _)| name).collect();
    suite(&Side { files, put: &put, get: &get, names: &names });
}

#[test]
fn local() {
    let rig = Rig::new();
    let dir = rig.dir.path().join("files");
    suite_in(Arc::new(LocalFiles::open(&dir).unwrap()), &dir);
}

fn s3_side(server: &S3Server, test: impl FnOnce(Arc<S3Files>, &dyn Fn(&str, &[u8]))) {
    let files = Arc::new(S3Files::open(server.config("in")).unwrap());
    let bucket = Bucket::open(server.config("in")).unwrap();
    let work = WorkDir::make(None).unwrap();
    test(files, &|name: &str, content: &[u8]| {
        let file = temporary(&work, content);
        bucket.replace(name, None, file.path(), file.len()).unwrap();
    });
}

#[test]
fn s3() {
    let server = S3Server::start();
    s3_side(&server, |files, put| {
        let get = |name: &str| server.objects()[&format!("in/{name}")].to_vec();
        let names = || server.objects().into_keys().collect();
        suite(&Side { files, put, get: &get, names: &names });
    });
}

/// Takes what is downloaded: its length and its last byte.
#[derive(Default)]
struct Tail(u64, Option<u8>);

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (self.0, self.1) = (self.0 + bytes.len() as u64, bytes.last().copied().or(self.1));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_more_of_a_file_is_taken_than_an_s3_server_said_it_has() {
    let endless = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", "4\r\nmore\r\n".repeat(1000));
    let port = scripted(vec![("GET", &*endless.leak())].leak());
    let server = S3Server::start();
    let mut config = server.config("in");
    config.address.endpoint = Some(format!("http://127.0.0.1:{port}"));
    let mut content = Vec::new();
    let error = Bucket::open(config).unwrap().get("x", &mut content).unwrap_err();
    assert!(content.is_empty() && error.reason.ends_with("bytes came of 0"), "{error:?}");
}

/// S3 takes 5 GiB in one request. That much is tried with `KURA_TEST_LONG=1`, which needs 12 GiB of memory; else as much
/// as goes up in two parts.
#[test]
fn s3_files_too_long_for_one_request_go_up_in_parts() {
    const PART_LEN: u64 = 64 << 20;
    let len = if std::env::var_os("KURA_TEST_LONG").is_some() { (5 << 30) + 1 } else { PART_LEN + 1 };
    let server = S3Server::start();
    s3_side(&server, |files, put| {
        put("f", b"old");
        let expected = files.stat(&path("f")).unwrap();
        let (dir, puts) = (tempfile::tempdir().unwrap(), server.count("PutObject"));
        let work = WorkDir::make(Some(dir.path())).unwrap();
        let mut long = work.file().unwrap();
        let file = std::fs::File::options().write(true).open(long.path()).unwrap();
        file.write_all_at(b"!", len - 1).unwrap();
        long.refresh().unwrap();
        let parts = AtomicUsize::new(0);
        server.set_fault(move |operation, _| match operation {
            "UploadPart" if parts.fetch_add(1, Ordering::SeqCst) > 0 => Fault::Deny,
            _ => Fault::Pass,
        });
        assert_eq!(files.replace(&expected, &long).unwrap_err().code(), Code::Denied);
        assert_eq!(files.stat(&path("f")).unwrap().compare(&expected), Sameness::Same, "it is as it was");
        assert_eq!(server.unfinished_uploads(), 0, "nothing of it is left to be paid for");
        server.set_fault(|_, _| Fault::Pass);
        let before = server.count("UploadPart");
        let now = files.replace(&expected, &long).unwrap();
        assert_eq!((now.size, server.count("PutObject") - puts), (len, 0));
        assert_eq!(server.count("UploadPart") - before, usize::try_from(len.div_ceil(PART_LEN)).unwrap());
        let mut tail = Tail::default();
        let read = files.download(&path("f"), &mut tail).unwrap();
        assert_eq!((read.compare(&now), tail.0, tail.1), (Sameness::Same, len, Some(b'!')));
    });
}

#[test]
fn s3_lists_page_by_page_and_passes_over_what_is_no_file() {
    let server = S3Server::start();
    server.set_page_len(7);
    s3_side(&server, |files, put| {
        for number in 0..100 {
            put(&format!("d{}/f{number}", number % 3), b"x");
        }
        put("d0/", b"");
        put("a", b"x");
        put("a/b", b"x");
        put("a//c", b"x");
        let report = Rig::new().run(&marking(), files);
        assert_eq!((report.done, report.scan.unreadable), (102, 1), "{report:?}");
    });
}

#[test]
fn s3_answers_that_are_lost_or_busy_are_survived() {
    let server = S3Server::start();
    s3_side(&server, |files, put| {
        for number in 0..30 {
            put(&format!("f{number}"), number.to_string().as_bytes());
        }
        let count = std::sync::atomic::AtomicUsize::new(0);
        server.set_fault(move |operation, _| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            match (operation, number % 5) {
                ("PutObject", 0) => Fault::CommitThenCut,
                ("PutObject", 2) => Fault::CommitThenStatus(500),
                ("PutObject", 3) => Fault::Status(503),
                ("PutObject", 4) => Fault::Status(409),
                ("GetObject", 1) => Fault::CutBody,
                _ => Fault::Pass,
            }
        });
        let mut patient = marking();
        patient.run.retry.max = 20;
        let report = balanced(Rig::new().run(&patient, files));
        assert_eq!((report.done, report.failed), (30, 0), "{report:?}");
        for (key, content) in server.objects() {
            let number = key.strip_prefix("in/f").unwrap();
            assert_eq!(content, format!("mark:{number}").as_bytes(), "{key}: processed once");
        }
    });
}

fn sftp(at: SshAddress, root: &Path) -> Arc<SftpFiles> {
    Arc::new(SftpFiles::new(at, root.to_str().unwrap(), None).unwrap())
}

#[test]
fn sftp_with_a_key() {
    let server = servers::sshd();
    let files = sftp(server.ssh(), &server.files());
    suite_in(files.clone(), &server.files());
    let work = WorkDir::make(None).unwrap();
    let place = server.files().join("odd/蔵");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o640)).unwrap();
    let expected = files.stat(&path("odd/蔵")).unwrap();
    files.replace(&expected, &temporary(&work, b"y")).unwrap();
    assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o7777, 0o640, "the mode is kept");
    std::os::unix::fs::symlink("蔵", server.files().join("odd/link")).unwrap();
    assert_eq!(files.stat(&path("odd/link")).unwrap_err().code(), Code::NotAFile, "links are not followed");
    assert_eq!(download(&*files, "odd").unwrap_err().code(), Code::NotAFile);
}

#[test]
fn sftp_with_a_password() {
    let keys = tempfile::tempdir().unwrap();
    let host = keys.path().join("host");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ecdsa", "-m", "PEM", "-N", "", "-f"])
        .arg(&host)
        .status()
        .unwrap();
    assert!(made.success());
    let more = format!("LoadModule mod_sftp.c\nSFTPEngine on\nSFTPHostKey {}\n", host.display());
    let server = servers::proftpd(false, &more);
    let key = std::fs::read_to_string(host.with_extension("pub")).unwrap();
    let known = keys.path().join("known");
    std::fs::write(&known, format!("[127.0.0.1]:{} {key}", server.port)).unwrap();
    let at = SshAddress {
        host: "127.0.0.1".to_owned(),
        port: Some(server.port),
        user: Some("me".to_owned()),
        key_file: None,
        known_hosts: Some(known),
    };
    let with = |password: &str| {
        let password = zeroize::Zeroizing::new(password.to_owned());
        let askpass = std::path::PathBuf::from(env!("CARGO_BIN_EXE_kura"));
        let root = server.files();
        Arc::new(SftpFiles::new(at.clone(), root.to_str().unwrap(), Some((password, askpass))).unwrap())
    };
    std::fs::write(server.files().join("a"), b"x").unwrap();
    let error = with("wrong-and-secret").stat(&path("a")).unwrap_err();
    assert_eq!(error.code(), Code::Login, "{error}");
    assert!(!error.to_string().contains("wrong-and-secret"), "{error}");
    let report = Rig::new().run(&marking(), with(servers::PASSWORD));
    assert_eq!((report.done, report.failed), (1, 0), "{report:?}");
    assert_eq!(std::fs::read(server.files().join("a")).unwrap(), b"mark:x");
}

/// Greets, and answers under numbers that nobody asked with.
const ANSWERS_ASTRAY: &str = r#"#!/bin/sh
printf '\000\000\000\005\002\000\000\000\003'
i=1
while [ $i -le 200 ]; do
  printf "\\000\\000\\000\\011\\145\\001\\000\\000\\$(printf %03o $i)\\000\\000\\000\\000"
  i=$((i + 1))
done
sleep 60
"#;

/// Runs a batch over SFTP with a program in the place of `ssh`.
fn run_with_ssh(script: &str) -> crate::cli::support::Ended {
    let home = crate::cli::support::Home::new();
    let store = home.store("store");
    let ssh = home.dir("programs").join("ssh");
    std::fs::write(&ssh, script).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let job = home.path("job.toml");
    let text = "name = \"j\"\n[source]\nurl = \"sftp://me@host/dir\"\n[process]\nkind = \"regex\"\nfind = \"a\"\n\
                with = \"b\"\n[run]\nretry = { max = 1 }\n";
    std::fs::write(&job, text).unwrap();
    let programs = format!("{}:{}", ssh.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = home.kura(["batch", "run"]);
    crate::cli::support::run(command.arg(&job).env("KURA_STORE", &store).env("PATH", programs))
}

#[test]
fn an_sftp_server_that_answers_what_nobody_asked_is_left_before_its_answers_fill_memory() {
    let ended = run_with_ssh(ANSWERS_ASTRAY);
    assert!(ended.code != Some(0) && ended.err.contains("makes no sense"), "{ended:?}");
}

/// Packets of an SFTP server; those that answer are numbered from 0 on.
struct Packets(Vec<u8>, u32);

impl Packets {
    fn answer(&mut self, what: u8, parts: &[&[u8]]) {
        let body = parts.concat();
        self.0.extend_from_slice(&u32::try_from(body.len() + 5).unwrap().to_be_bytes());
        self.0.push(what);
        self.0.extend_from_slice(&self.1.to_be_bytes());
        self.0.extend_from_slice(&body);
        self.1 += 1;
    }

    /// Runs a batch with a server that says all this, whatever it is asked.
    fn run(&self) -> crate::cli::support::Ended {
        let mut said = tempfile::NamedTempFile::new().unwrap();
        said.write_all(&[&[0, 0, 0, 5, 2, 0, 0, 0, 3], &self.0[..]].concat()).unwrap();
        let said = said.path().display();
        run_with_ssh(&format!("#!/bin/sh\ncat {said}\nexec timeout 20 cat >/dev/null\n"))
    }
}

const NUMBER_0: [u8; 4] = [0; 4];
const NUMBER_1: [u8; 4] = [0, 0, 0, 1];
const HANDLE: (u8, [u8; 5]) = (102, [0, 0, 0, 1, b'h']);

/// What becomes of a file that is said to have `size` bytes, when the first piece of it has `piece_len`.
fn sftp_piece(size: u64, piece_len: usize) -> crate::cli::support::Ended {
    let attrs = [&[0, 0, 0, 5][..], &size.to_be_bytes(), &0o100_644_u32.to_be_bytes()].concat();
    let mut packets = Packets(Vec::new(), 0);
    packets.answer(HANDLE.0, &[&HANDLE.1]);
    packets.answer(104, &[&NUMBER_1, &NUMBER_1, b"f", &NUMBER_0, &attrs]);
    packets.answer(101, &[&NUMBER_1]);
    packets.answer(101, &[&NUMBER_0]);
    packets.answer(105, &[&attrs]);
    packets.answer(HANDLE.0, &[&HANDLE.1]);
    packets.answer(103, &[&u32::try_from(piece_len).unwrap().to_be_bytes(), &vec![b'x'; piece_len]]);
    for _ in 0..32 {
        packets.answer(101, &[&NUMBER_1]);
    }
    packets.answer(101, &[&NUMBER_0]);
    packets.answer(105, &[&attrs]);
    packets.run()
}

#[test]
fn an_sftp_server_that_sends_more_than_was_asked_for_is_no_success() {
    let ended = sftp_piece(100_000, 40_000);
    assert!(ended.code != Some(0) && ended.err.contains("makes no sense"), "{ended:?}");
}

#[test]
fn no_more_of_a_file_is_taken_than_an_sftp_server_said_it_has() {
    let ended = sftp_piece(10, 20);
    assert!(ended.code != Some(0) && ended.err.contains("changed while it was read"), "{ended:?}");
}

#[test]
fn an_sftp_listing_of_nothing_that_does_not_end_is_left() {
    let name = [&NUMBER_1[..], b".", &NUMBER_0, &NUMBER_0].concat();
    let names = [&80_000_u32.to_be_bytes()[..], &name.repeat(80_000)].concat();
    let mut packets = Packets(Vec::new(), 0);
    packets.answer(HANDLE.0, &[&HANDLE.1]);
    for _ in 0..51 {
        packets.answer(104, &[&names]);
    }
    packets.answer(101, &[&NUMBER_1]);
    packets.answer(101, &[&NUMBER_0]);
    let ended = packets.run();
    assert!(ended.code != Some(0) && ended.err.contains("too many names"), "{ended:?}");
}

#[test]
fn connections_that_break_at_any_byte_process_every_file_once() {
    let (dav, ssh, ftp) = (servers::apache(""), servers::sshd(), servers::proftpd(false, ""));
    let login =
        |security| (Some("me".to_owned()), Some(zeroize::Zeroizing::new(servers::PASSWORD.to_owned())), security);
    for (number, server) in [&dav, &ssh, &ftp].into_iter().enumerate() {
        let proxy = servers::breaking(server.port);
        let mut at = server.ssh();
        at.port = Some(proxy);
        let text = std::fs::read_to_string(server.dir.path().join("known_hosts")).unwrap_or_default();
        let known = server.dir.path().join("known_proxy");
        std::fs::write(&known, text.replace(&server.port.to_string(), &proxy.to_string())).unwrap();
        at.known_hosts = Some(known);
        let root = server.files();
        let root = root.to_str().unwrap();
        let (user, password, security) = login(FtpSecurity::None);
        let (host, port) = ("127.0.0.1".to_owned(), Some(proxy));
        let files: Arc<dyn FileSystem> = match number {
            0 => {
                let at = DavAddress { host, port, user, password, is_secure: true };
                Arc::new(DavFiles::new(at, "/da v", Some(&server.dir.path().join("server.pem"))).unwrap())
            }
            1 => Arc::new(SftpFiles::new(at, root, None).unwrap()),
            _ => Arc::new(FtpFiles::new(FtpAddress { host, port, user, password, security }, root, None).unwrap()),
        };
        let content = crate::workspace_rig::noise(40_000);
        for name in 0..12 {
            let place = server.files().join(format!("f{name}"));
            std::fs::write(&place, &content).unwrap();
            std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o666)).unwrap();
        }
        let mut patient = marking();
        patient.run.retry.max = 100;
        let rig = Rig::new();
        // A host that fails too often in a row is given up, and gone on with later.
        let mut left = balanced(rig.run(&patient, files.clone())).pending;
        for _ in 0..20 {
            if left == 0 {
                break;
            }
            left = balanced(rig.open(&patient, files.clone()).unwrap().resume().unwrap()).pending;
        }
        balanced(rig.open(&patient, files.clone()).unwrap().retry_failed().unwrap());
        let wanted = [&b"mark:"[..], &content].concat();
        for name in 0..12 {
            let found = std::fs::read(server.files().join(format!("f{name}"))).unwrap();
            assert!(found == wanted, "server {number}, f{name}: {} bytes of {}", found.len(), wanted.len());
        }
    }
}

#[test]
fn sftp_refuses_hosts_it_does_not_know_and_keys_that_are_not_known() {
    let server = servers::sshd();
    let other = servers::sshd();
    let mut at = server.ssh();
    at.known_hosts = Some(server.dir.path().join("nobody"));
    assert_eq!(sftp(at, &server.files()).stat(&path("x")).unwrap_err().code(), Code::Untrusted);
    let stranger = std::fs::read_to_string(other.dir.path().join("host.pub")).unwrap();
    std::fs::write(server.dir.path().join("wrong"), format!("[127.0.0.1]:{} {stranger}", server.port)).unwrap();
    let mut at = server.ssh();
    at.known_hosts = Some(server.dir.path().join("wrong"));
    assert_eq!(sftp(at, &server.files()).stat(&path("x")).unwrap_err().code(), Code::Untrusted);
    let mut at = server.ssh();
    at.key_file = Some(other.dir.path().join("client"));
    assert_eq!(sftp(at, &server.files()).stat(&path("x")).unwrap_err().code(), Code::Login);
}

#[test]
fn sftp_to_nobody_is_an_unreachable_host() {
    let server = servers::sshd();
    let mut at = server.ssh();
    let files = server.files();
    at.port = Some(1);
    assert_eq!(sftp(at, &files).stat(&path("x")).unwrap_err().code(), Code::Network);
    let (at, connected) = (server.ssh(), sftp(server.ssh(), &files));
    assert_eq!(connected.stat(&path("x")).unwrap_err().code(), Code::Vanished);
    for host in ["-oProxyCommand=x", "", "a b"] {
        assert!(SftpFiles::new(SshAddress { host: host.to_owned(), ..at.clone() }, "/", None).is_err());
    }
}

#[test]
fn addresses_hold_no_password() {
    let url = Url::parse("sftp://me@example.org:2222/a%20b/c").unwrap();
    assert_eq!(
        (url.user.as_deref(), url.host.as_str(), url.port, url.path.as_str()),
        (Some("me"), "example.org", Some(2222), "/a b/c")
    );
    assert_eq!(Url::parse("ftp://[::1]:21/x").unwrap().host, "::1");
    let refused = Url::parse("ftp://me:hunter2@example.org/x").unwrap_err().to_string();
    assert!(!refused.contains("hunter2"));
    for bad in ["", "x", "ftp:/x", "ftp://h:notaport/", "ftp://h/%zz", "ftp://h/%0", "ftp://h/%00"] {
        assert!(Url::parse(bad).is_err(), "{bad}");
    }
}
