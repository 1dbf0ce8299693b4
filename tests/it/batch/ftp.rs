//! FTP and FTPS against ProFTPD, and against servers that misbehave.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use kura::apps::batch::{Code, FileSystem, FtpAddress, FtpFiles, FtpSecurity, WorkDir};
use zeroize::Zeroizing;

use super::remote::{download, path, suite_in, temporary};
use super::rig::{Rig, balanced, marking};
use super::servers::{PASSWORD, Server, certificate, proftpd};

fn address(port: u16, security: FtpSecurity, password: &str) -> FtpAddress {
    FtpAddress {
        host: "127.0.0.1".to_owned(),
        port: Some(port),
        user: Some("me".to_owned()),
        password: Some(Zeroizing::new(password.to_owned())),
        security,
    }
}

/// The files of a server, its own certificate trusted.
fn files(server: &Server, security: FtpSecurity) -> Arc<FtpFiles> {
    let ca = server.dir.path().join("server.pem");
    let at = address(server.port, security, PASSWORD);
    Arc::new(FtpFiles::new(at, server.files().to_str().unwrap(), Some(&ca)).unwrap())
}

#[test]
fn plain() {
    let server = proftpd(false, "");
    let files = files(&server, FtpSecurity::None);
    suite_in(files.clone(), &server.files());
    let work = WorkDir::make(None).unwrap();
    let place = server.files().join("odd/蔵");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o640)).unwrap();
    files.replace(&files.stat(&path("odd/蔵")).unwrap(), &temporary(&work, b"y")).unwrap();
    assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o7777, 0o640, "the mode is kept");
    assert_eq!(download(&*files, "odd").unwrap_err().code(), Code::NotAFile);
    assert_eq!(files.stat(&path("a\nDELE odd")).unwrap_err().code(), Code::BadName);
}

#[test]
fn names_of_any_bytes_are_carried_as_they_are() {
    use std::os::unix::ffi::OsStrExt;
    let server = proftpd(false, "UseEncoding off");
    let place = server.files().join(std::ffi::OsStr::from_bytes(b"caf\xe9 \xff.txt"));
    std::fs::write(&place, b"x").unwrap();
    std::fs::write(server.files().join(" ends with a space "), b"y").unwrap();
    std::fs::write(server.files().join("n".repeat(255)), b"z").unwrap();
    let report = balanced(Rig::new().run(&marking(), files(&server, FtpSecurity::None)));
    assert_eq!((report.done, report.failed, report.scan.unreadable), (3, 0, 0), "{report:?}");
    assert_eq!(std::fs::read(place).unwrap(), b"mark:x");
    assert_eq!(std::fs::read(server.files().join(" ends with a space ")).unwrap(), b"mark:y");
}

#[test]
fn explicit_tls_with_sessions_resumed() {
    let server = proftpd(true, "");
    suite_in(files(&server, FtpSecurity::Explicit), &server.files());
    let log = std::fs::read_to_string(server.dir.path().join("tls.log")).unwrap();
    assert!(log.contains("resumed session"), "{log}");
}

#[test]
fn a_server_that_speaks_tls_1_3_only_is_spoken_to() {
    let server = proftpd(true, "TLSProtocol TLSv1.3\nTLSOptions NoSessionReuseRequired");
    std::fs::write(server.files().join("a"), b"x").unwrap();
    let report = balanced(Rig::new().run(&marking(), files(&server, FtpSecurity::Explicit)));
    assert_eq!((report.done, report.failed), (1, 0), "{report:?}");
    let log = std::fs::read_to_string(server.dir.path().join("tls.log")).unwrap();
    assert!(log.contains("TLSv1.3 connection accepted"), "{log}");
}

#[test]
fn implicit_tls() {
    let server = proftpd(true, "TLSOptions UseImplicitSSL");
    suite_in(files(&server, FtpSecurity::Implicit), &server.files());
}

#[test]
fn servers_without_facts_are_listed_in_the_old_way() {
    let server = proftpd(false, "FactsAdvertise off");
    suite_in(files(&server, FtpSecurity::None), &server.files());
}

#[test]
fn certificates_that_are_not_to_be_trusted_are_refused() {
    let server = proftpd(true, "");
    let dir = server.dir.path();
    certificate(dir, "other", "IP:127.0.0.1", false);
    let at = address(server.port, FtpSecurity::Explicit, PASSWORD);
    let files = FtpFiles::new(at, "/", Some(&dir.join("other.pem"))).unwrap();
    assert_eq!(files.stat(&path("x")).unwrap_err().code(), Code::Untrusted);
    // The system does not know it either.
    if let Ok(files) = FtpFiles::new(address(server.port, FtpSecurity::Explicit, PASSWORD), "/", None) {
        assert_eq!(files.stat(&path("x")).unwrap_err().code(), Code::Untrusted);
    }
    for (stem, name, is_expired) in [("foreign", "DNS:elsewhere.example", false), ("expired", "IP:127.0.0.1", true)] {
        certificate(dir, stem, name, is_expired);
        let tls = format!(
            "LoadModule mod_tls.c\nTLSEngine on\nTLSECCertificateFile {0}/{stem}.pem\n\
             TLSECCertificateKeyFile {0}/{stem}.key\n",
            dir.display()
        );
        let other = proftpd(false, &tls);
        let at = address(other.port, FtpSecurity::Explicit, PASSWORD);
        let files = FtpFiles::new(at, "/", Some(&dir.join(format!("{stem}.pem")))).unwrap();
        let error = files.stat(&path("x")).unwrap_err();
        assert_eq!(error.code(), Code::Untrusted, "{stem}: {error}");
    }
}

#[test]
fn no_password_goes_to_a_server_that_refuses_tls() {
    let server = proftpd(false, "");
    let error = files(&server, FtpSecurity::Explicit).stat(&path("x")).unwrap_err();
    assert!(!error.code().is_retryable(), "{error}");
    let log = std::fs::read_to_string(server.dir.path().join("system.log")).unwrap();
    assert!(!log.contains("Login successful"), "{log}");
    let secret = FtpFiles::new(address(server.port, FtpSecurity::None, "wrong"), "/", None).unwrap();
    let error = secret.stat(&path("x")).unwrap_err();
    assert_eq!(error.code(), Code::Login);
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[test]
fn a_host_that_takes_few_connections_is_asked_for_few() {
    let server = proftpd(false, "MaxClients 2");
    for number in 0..40 {
        std::fs::write(server.files().join(format!("f{number}")), b"x").unwrap();
    }
    let mut job = marking();
    job.run.workers = Some(8);
    let report = balanced(Rig::new().run(&job, files(&server, FtpSecurity::None)));
    assert_eq!((report.done, report.failed), (40, 0), "{report:?}");
}

#[test]
fn a_file_that_the_server_has_no_room_for_leaves_the_old_one() {
    let server = proftpd(false, "MaxStoreFileSize 100 Kb");
    std::fs::write(server.files().join("a"), b"old").unwrap();
    let (files, work) = (files(&server, FtpSecurity::None), WorkDir::make(None).unwrap());
    let expected = files.stat(&path("a")).unwrap();
    let error = files.replace(&expected, &temporary(&work, &vec![7; 3 << 20])).unwrap_err();
    assert!(matches!(error.code(), Code::Full | Code::Network), "{error}");
    assert_eq!(std::fs::read(server.files().join("a")).unwrap(), b"old");
    let denied = server.files().join("denied");
    std::fs::write(&denied, b"x").unwrap();
    assert_eq!(files.stat(&path("missing")).unwrap_err().code(), Code::Vanished);
}

/// A server that follows a script: after each command that begins so, it says that, or hangs up when there is nothing.
fn scripted(script: &'static [(&'static str, &'static str)]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        // Ends with the test's process; each connection when its client does.
        for socket in listener.incoming().flatten() {
            let mut reader = BufReader::new(socket);
            reader.get_mut().write_all(b"220 ready\r\n").ok();
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
                let said = script.iter().find(|(command, _)| line.starts_with(command)).map(|(_, said)| *said);
                line.clear();
                match said.unwrap_or("502 no\r\n") {
                    "" => break,
                    said => reader.get_mut().write_all(said.as_bytes()).ok(),
                };
            }
        }
    });
    port
}

const LOGIN: [(&str, &str); 3] = [("USER", "331 and?\r\n"), ("PASS", "230 in\r\n"), ("TYPE", "200 ok\r\n")];

#[test]
fn what_servers_say_is_told_apart() {
    const CASES: &[(&str, Code)] = &[
        ("421 too many connections\r\n", Code::Busy),
        ("530 Sorry, the maximum number of clients are connected\r\n", Code::Busy),
        ("550 Permission denied\r\n", Code::Denied),
        ("550 /x: No such file or directory\r\n", Code::Vanished),
        ("552 Quota exceeded\r\n", Code::Full),
        ("500 what\r\n", Code::Protocol),
        ("zzz\r\n", Code::Protocol),
        ("", Code::Network),
    ];
    for (number, (said, code)) in CASES.iter().enumerate() {
        let mut script = LOGIN.to_vec();
        script.push(("FEAT", "211-Features\r\n MLST size*;\r\n211 End\r\n"));
        script.push(("MLST", said));
        let at = address(scripted(script.leak()), FtpSecurity::None, PASSWORD);
        let error = FtpFiles::new(at, "/", None).unwrap().stat(&path("x")).unwrap_err();
        assert_eq!(error.code(), *code, "{number} {said:?}: {error}");
        assert!(!error.to_string().contains(PASSWORD));
    }
}

#[test]
fn a_server_that_sends_data_connections_elsewhere_is_not_followed() {
    // The address in the answer is one that nobody may be asked to connect to.
    let mut script = LOGIN.to_vec();
    script.push(("FEAT", "211-Features\r\n MLST size*;\r\n211 End\r\n"));
    script.push(("PASV", "227 Entering Passive Mode (192,0,2,1,0,1)\r\n"));
    let port = scripted(script.leak());
    let files = FtpFiles::new(address(port, FtpSecurity::None, PASSWORD), "/", None).unwrap();
    let mut job = marking();
    job.run.retry.max = 1;
    let error = Rig::new().open(&job, Arc::new(files)).unwrap().scan_and_filter().unwrap_err();
    assert!(error.to_string().contains("refused"), "port 1 of the server itself was tried: {error}");
}

/// Hands each who connects this text so many times; what a server says to `PASV`.
fn handing_out(text: &'static str, count: usize) -> &'static str {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let mut writer = std::io::BufWriter::new(socket);
            // Who hears enough hangs up.
            (0..count).try_for_each(|_| writer.write_all(text.as_bytes())).ok();
        }
    });
    format!("227 Entering Passive Mode (127,0,0,1,{},{})\r\n", port / 256, port % 256).leak()
}

#[test]
fn a_listing_of_nothing_that_does_not_end_is_left() {
    let mut script = LOGIN.to_vec();
    script.push(("PASV", handing_out("total \n", 4_000_001)));
    script.push(("LIST", "150 here\r\n226 done\r\n"));
    let files = FtpFiles::new(address(scripted(script.leak()), FtpSecurity::None, PASSWORD), "/", None).unwrap();
    let error = Rig::new().open(&marking(), Arc::new(files)).unwrap().scan_and_filter().unwrap_err();
    assert!(error.to_string().contains("too many names"), "{error}");
}

#[test]
fn a_listing_of_long_lines_is_left_before_it_fills_the_memory() {
    let mut script = LOGIN.to_vec();
    let line = format!("total {}\n", "9".repeat(60_000));
    script.push(("PASV", handing_out(line.leak(), 20_000)));
    script.push(("LIST", "150 here\r\n226 done\r\n"));
    let files = FtpFiles::new(address(scripted(script.leak()), FtpSecurity::None, PASSWORD), "/", None).unwrap();
    let error = Rig::new().open(&marking(), Arc::new(files)).unwrap().scan_and_filter().unwrap_err();
    assert!(error.to_string().contains("too long ones"), "{error}");
}

#[test]
fn no_more_of_a_file_is_taken_than_the_server_said_it_has() {
    let mut script = LOGIN.to_vec();
    script.push(("FEAT", "211-Features\r\n MLST size*;\r\n211 End\r\n"));
    script.push(("MLST", "250-Facts\r\n type=file;size=3; /x\r\n250 End\r\n"));
    script.push(("PASV", handing_out("xxxx", 25_000)));
    script.push(("RETR", "150 here\r\n226 done\r\n"));
    let files = FtpFiles::new(address(scripted(script.leak()), FtpSecurity::None, PASSWORD), "/", None).unwrap();
    let mut content = Vec::new();
    let error = files.download(&path("x"), &mut content).unwrap_err();
    assert_eq!((error.code(), content.len()), (Code::Short, 4), "{error}");
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}

#[test]
fn a_directory_without_a_name_of_its_own_is_not_walked_into() {
    let mut script = LOGIN.to_vec();
    script.push(("FEAT", "211-Features\r\n MLST size*;\r\n211 End\r\n"));
    script.push(("PASV", handing_out("type=dir; \r\ntype=dir; ./\r\ntype=dir; a/../..\r\n", 1)));
    script.push(("MLSD", "150 here\r\n226 done\r\n"));
    let files = FtpFiles::new(address(scripted(script.leak()), FtpSecurity::None, PASSWORD), "/", None).unwrap();
    let scan = Rig::new().open(&marking(), Arc::new(files)).unwrap().scan_and_filter().unwrap();
    assert_eq!((scan.scanned, scan.backlogged), (0, 0), "{scan:?}");
}
