//! WebDAV against Apache, and against answers that misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use kura::apps::batch::{Code, DavAddress, DavFiles, FileSystem, Unreadable, WorkDir, read_multistatus};
use zeroize::Zeroizing;

use super::remote::{download, path, suite_in, temporary};
use super::rig::{Rig, balanced, marking};
use super::servers::{PASSWORD, Server, apache, certificate};

fn address(port: u16, is_secure: bool, password: &str) -> DavAddress {
    let (host, user) = ("127.0.0.1".to_owned(), Some("me".to_owned()));
    DavAddress { host, port: Some(port), user, password: Some(Zeroizing::new(password.to_owned())), is_secure }
}

fn files(server: &Server) -> Arc<DavFiles> {
    let ca = server.dir.path().join("server.pem");
    Arc::new(DavFiles::new(address(server.port, true, PASSWORD), "/da v", Some(&ca)).unwrap())
}

#[test]
fn apache_passes_the_suite() {
    let server = apache("");
    suite_in(files(&server), &server.files());
    assert_eq!(download(&*files(&server), "odd").unwrap_err().code(), Code::NotAFile);
}

#[test]
fn only_who_is_trusted_gets_the_password() {
    let server = apache("");
    let dir = server.dir.path();
    certificate(dir, "other", "IP:127.0.0.1", false);
    let at = address(server.port, true, PASSWORD);
    let stranger = DavFiles::new(at, "/da v", Some(&dir.join("other.pem"))).unwrap();
    assert_eq!(stranger.stat(&path("x")).unwrap_err().code(), Code::Untrusted);
    let wrong = DavFiles::new(address(server.port, true, "wrong"), "/da v", Some(&dir.join("server.pem"))).unwrap();
    let error = wrong.stat(&path("x")).unwrap_err();
    assert_eq!(error.code(), Code::Login);
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[test]
fn a_lock_of_somebody_else_is_kept_to() {
    let server = apache("");
    let place = server.files().join("a");
    std::fs::write(&place, b"old").unwrap();
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    std::fs::write(server.files().join("b"), b"x").unwrap();
    let config = "<?xml version=\"1.0\"?><lockinfo xmlns=\"DAV:\"><lockscope><exclusive/></lockscope>\
                  <locktype><write/></locktype></lockinfo>";
    let locked = std::process::Command::new("curl")
        .args(["-sf", "-X", "LOCK", "--cacert"])
        .arg(server.dir.path().join("server.pem"))
        .args(["-u", &format!("me:{PASSWORD}"), "-H", "Content-Type: text/xml", "-d", config])
        .arg(format!("https://127.0.0.1:{}/da%20v/a", server.port))
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(locked.success());
    let report = balanced(Rig::new().run(&marking(), files(&server)));
    assert_eq!((report.done, report.failed, &*report.failures[0].code), (1, 1, "locked"), "{report:?}");
    assert_eq!(std::fs::read(place).unwrap(), b"old");
    assert!(
        std::fs::read_dir(server.files())
            .unwrap()
            .flatten()
            .all(|entry| { !entry.file_name().to_string_lossy().starts_with(".kura-part-") })
    );
}

#[test]
fn too_large_for_the_server_leaves_the_old_file() {
    let server = apache("LimitRequestBody 100000");
    std::fs::write(server.files().join("a"), b"old").unwrap();
    let (files, work) = (files(&server), WorkDir::make(None).unwrap());
    let expected = files.stat(&path("a")).unwrap();
    let error = files.replace(&expected, &temporary(&work, &[7; 200_000])).unwrap_err();
    assert!(matches!(error.code(), Code::Full | Code::Network), "{error}");
    assert_eq!(std::fs::read(server.files().join("a")).unwrap(), b"old");
}

/// A server that answers every request of a method with the same text, and then hangs up.
pub(super) fn scripted(script: &'static [(&'static str, &'static str)]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let mut reader = BufReader::new(socket);
            let (mut line, mut first, mut len) = (String::new(), String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                if first.is_empty() {
                    first = line.clone();
                }
                let lower = line.to_lowercase();
                if let Some(found) = lower.strip_prefix("content-length:") {
                    len = found.trim().parse().unwrap();
                }
                line.clear();
            }
            std::io::copy(&mut reader.by_ref().take(len), &mut std::io::sink()).ok();
            let said = script.iter().find(|(method, _)| first.starts_with(method)).map_or("", |(_, said)| said);
            reader.get_mut().write_all(said.as_bytes()).ok();
        }
    });
    port
}

fn asked(answer: &str) -> kura::apps::batch::BatchError {
    let script = vec![("PROPFIND", &*answer.to_owned().leak())].leak();
    let at = address(scripted(script), false, PASSWORD);
    DavFiles::new(at, "/", None).unwrap().stat(&path("x")).unwrap_err()
}

#[test]
fn what_servers_answer_is_told_apart() {
    let cases = [
        ("HTTP/1.1 301 Moved\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n", Code::Protocol),
        ("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", Code::Denied),
        ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", Code::Vanished),
        ("HTTP/1.1 423 Locked\r\nContent-Length: 0\r\n\r\n", Code::Locked),
        ("HTTP/1.1 503 Later\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", Code::Busy),
        ("HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n", Code::Full),
        ("HTTP/1.1 207 Multi\r\nContent-Length: 5000\r\n\r\n<?xml version=\"1.0\"?><m", Code::Short),
        ("", Code::Network),
    ];
    for (answer, code) in cases {
        let error = asked(answer);
        assert_eq!(error.code(), code, "{answer:?}: {error}");
    }
    assert_eq!(asked("HTTP/1.1 429 Later\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n").wait_ms(), Some(7000));
}

#[test]
fn an_answer_can_say_one_thing_of_each_file() {
    let body = "<?xml version=\"1.0\"?><d:multistatus xmlns:d='DAV:'>\
        <d:response><d:href>/</d:href><d:propstat><d:prop><d:resourcetype><d:collection/></d:resourcetype></d:prop>\
        <d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>\
        <d:response><d:href>http://elsewhere/a%26%20&amp;b</d:href>\
        <d:propstat><d:prop><d:getcontentlength>3</d:getcontentlength>\
        <d:resourcetype/></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat>\
        <d:propstat><d:prop><d:getetag/></d:prop>\
        <d:status>HTTP/1.1 404 Not Found</d:status></d:propstat></d:response>\
        <d:response><d:href>/denied</d:href><d:status>HTTP/1.1 403 Forbidden</d:status></d:response>\
        <d:response><d:href>/../up</d:href><d:propstat><d:prop><d:resourcetype/></d:prop>\
        <d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response></d:multistatus>";
    let answer = format!("HTTP/1.1 207 Multi\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let script = vec![("PROPFIND", &*answer.leak())].leak();
    let files = DavFiles::new(address(scripted(script), false, PASSWORD), "/", None).unwrap();
    let rig = Rig::new();
    let scan = rig.open(&marking(), Arc::new(files)).unwrap().scan_and_filter().unwrap();
    assert_eq!(scan.scanned, 1, "the one that is there: {scan:?}");
}

/// An answer to a question about `/x`.
fn told(body: &str) -> String {
    let body = format!("<multistatus xmlns='DAV:'>{body}</multistatus>");
    format!("HTTP/1.1 207 Multi\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn no_more_of_a_file_is_taken_than_the_server_said_it_has() {
    let found = told(
        "<response><href>/x</href><propstat><prop><getcontentlength>3</getcontentlength><resourcetype/></prop>\
         <status>HTTP/1.1 200 OK</status></propstat></response>",
    );
    let content = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let script = vec![("PROPFIND", &*found.leak()), ("GET", &*content.leak())].leak();
    let files = DavFiles::new(address(scripted(script), false, PASSWORD), "/", None).unwrap();
    let mut content = Vec::new();
    let error = files.download(&path("x"), &mut content).unwrap_err();
    assert_eq!((error.code(), content.len()), (Code::Short, 4), "{error}");
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}

#[test]
fn an_answer_that_does_not_end_is_left() {
    // Without a resource, and with resources that are none.
    let error = asked(&told(&"<x/>".repeat(200_000)));
    assert!(error.to_string().contains("too long"), "{error}");
    let mut body = "<multistatus xmlns='DAV:'>".as_bytes().chain(Repeated(b"<response/>", 0));
    let mut count = 0;
    let read = read_multistatus(&mut body, &mut |_| {
        count += 1;
        if count > 5_000_000 { Err("it goes on") } else { Ok(()) }
    });
    assert!(matches!(read, Err(Unreadable::Endless)), "{read:?} after {count}");
}

/// The same again and again.
struct Repeated(&'static [u8], usize);

impl Read for Repeated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Self(text, at) = self;
        for byte in &mut *buffer {
            (*byte, *at) = (text[*at], (*at + 1) % text.len());
        }
        Ok(buffer.len())
    }
}
