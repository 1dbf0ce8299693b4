//! Where repositories lie and how they are reached: HTTP, tokens, certificates, limits; and who can read what.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use kura::apps::release::{Access, Notify, Outcome, ReleaseError, Reply, Request, Rollout};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use super::support::{CHANNEL, World, run};
use crate::workspace_rig as ws;

/// What a server of a directory does instead of serving it.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Fine,
    Failing,
    Cutting,
    Endless,
}

/// A directory behind HTTP.
struct Server {
    address: String,
    stop: Arc<AtomicBool>,
    mood: Arc<Mutex<Mood>>,
    posted: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(dir: PathBuf, token: Option<&'static str>) -> Self {
        Self::start_with(dir, token, None)
    }

    fn start_with(dir: PathBuf, token: Option<&'static str>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (stop, mood) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Mood::Fine)));
        let posted: Arc<Mutex<Vec<String>>> = Arc::default();
        let shared = (stop.clone(), mood.clone(), Arc::clone(&posted));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.0.load(Ordering::SeqCst) {
                    return;
                }
                let (mood, stream) = (*shared.1.lock(), stream.unwrap());
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                // A client that gives up is no failure of the server.
                drop(match &tls {
                    None => serve(stream, &dir, token, mood, &shared.2),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls.clone()).unwrap();
                        serve(StreamOwned::new(connection, stream), &dir, token, mood, &shared.2)
                    }
                });
            }
        });
        let (address, thread) = (format!("{scheme}://{address}"), Some(thread));
        Self { address, stop, mood, posted, thread }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let (_, address) = self.address.split_once("://").unwrap();
        drop(TcpStream::connect(address));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(
    mut stream: impl Read + Write,
    dir: &std::path::Path,
    token: Option<&str>,
    mood: Mood,
    posted: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut stream);
    let (mut first, mut len, mut authorized) = (String::new(), 0, token.is_none());
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let lower = line.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            len = value.trim().parse().unwrap();
        }
        authorized |= token.is_some_and(|token| line.trim().ends_with(&format!("Bearer {token}")));
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    drop(reader);
    let (method, rest) = first.split_once(' ').unwrap_or_default();
    let path = dir.join(rest.split(' ').next().unwrap_or_default().trim_start_matches('/'));
    let mut answer = |status: &str, body: &[u8], len: usize| {
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n")?;
        stream.write_all(body)?;
        stream.flush()
    };
    if !authorized {
        return answer("401 Unauthorized", b"", 0);
    }
    match (method, mood, fs::read(&path)) {
        (_, Mood::Failing, _) => answer("503 Service Unavailable", b"", 0),
        ("POST", ..) => {
            posted.lock().push(String::from_utf8(body).unwrap());
            answer("204 No Content", b"", 0)
        }
        ("PUT", ..) => {
            fs::create_dir_all(path.parent().unwrap())?;
            fs::write(&path, body)?;
            answer("201 Created", b"", 0)
        }
        (_, Mood::Endless, Ok(_)) => loop {
            answer("200 OK", &[b' '; 65_536], 1 << 40)?;
        },
        (_, Mood::Cutting, Ok(bytes)) => answer("200 OK", &bytes[..bytes.len() / 2], bytes.len()),
        (_, _, Ok(bytes)) => answer("200 OK", &bytes, bytes.len()),
        (_, _, Err(_)) => answer("404 Not Found", b"", 0),
    }
}

fn openssl(dir: &std::path::Path, args: &[&str]) {
    let done = std::process::Command::new("openssl").args(args).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A certificate authority in `ca.pem`, and what it signed for `server` and `client`.
fn certificates(dir: &std::path::Path) {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "30"];
    openssl(dir, &[&ca[..], &key].concat());
    fs::write(dir.join("ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    for name in ["server", "client"] {
        let file = |end: &str| format!("{name}.{end}");
        let request = ["req", "-keyout", &file("key"), "-out", &file("csr"), "-subj", &format!("/CN={name}")];
        openssl(dir, &[&request[..], &key].concat());
        let sign = ["x509", "-req", "-in", &file("csr"), "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        openssl(dir, &[&sign[..], &["-out", &file("pem"), "-days", "30", "-extfile", "ext"]].concat());
    }
}

/// TLS that only clients with a certificate may speak.
fn tls(dir: &std::path::Path) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(dir.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap())
}

#[test]
fn certificates_say_who_may_read_and_who_is_read() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "one")]);
    let dir = world.path("tls");
    fs::create_dir(&dir).unwrap();
    certificates(&dir);
    let server = Server::start_with(world.repository(), None, Some(tls(&dir)));
    let file = |name: &str| Some(dir.join(name).to_str().unwrap().to_owned());
    let known = Access { ca: file("ca.pem"), ..Access::default() };
    let certified = Access { client_cert: file("client.pem"), client_key: file("client.key"), ..known.clone() };
    let unknown = Access { ca: None, ..certified.clone() };
    for access in [Access::default(), known, unknown] {
        let error = world.follow_at(&server.address, access).unwrap_err();
        assert!(matches!(error, ReleaseError::Repository { .. }), "{error}");
    }
    world.follow_at(&server.address, certified).unwrap();
    world.install(&["tool"]).unwrap();
    assert_eq!(ws::read(&world.client, "t"), b"one");
}

#[test]
fn a_repository_behind_http_is_followed_with_a_token_and_reported_to() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "one")]);
    let server = Server::start(world.repository(), Some("the-token"));
    let token_file = world.path("token").to_str().unwrap().to_owned();
    fs::write(&token_file, "wrong\n").unwrap();
    let access = Access { token_file: Some(token_file.clone()), ..Access::default() };
    let error = world.follow_at(&server.address, Access::default()).unwrap_err();
    assert!(matches!(error, ReleaseError::Repository { .. }) && error.to_string().contains("denied"), "{error}");
    let error = world.follow_at(&server.address, access.clone()).unwrap_err().to_string();
    assert!(error.contains("401") && !error.contains("wrong"), "{error}");
    fs::write(&token_file, "the-token\n").unwrap();
    world.follow_at(&server.address, access).unwrap();
    world.install(&["tool"]).unwrap();
    assert_eq!(ws::read(&world.client, "t"), b"one");
    let standing = world.standings().remove(0);
    assert_eq!((standing.totals.installed, standing.success_rate), (1, 1.0));
    // It fails, breaks off, never ends: nothing is installed, and nothing counts against the release.
    world.publish("tool", "1.1.0", json!({}), &[("t", "two")]);
    for mood in [Mood::Failing, Mood::Cutting, Mood::Endless] {
        *server.mood.lock() = mood;
        let error = world.update().unwrap_err();
        let fits = matches!(error, ReleaseError::Repository { .. } | ReleaseError::Untrusted { .. });
        assert!(fits, "{error}");
        assert_eq!(ws::read(&world.client, "t"), b"one");
    }
    *server.mood.lock() = Mood::Fine;
    assert!(world.state().denied.is_empty());
    world.update().unwrap();
    assert_eq!(ws::read(&world.client, "t"), b"two");
}

#[test]
fn secrets_stay_out_of_addresses_and_tokens_off_open_lines() {
    let world = World::new();
    let token_file = world.path("token").to_str().unwrap().to_owned();
    fs::write(&token_file, "the-token").unwrap();
    let access = Access { token_file: Some(token_file), ..Access::default() };
    let error = world.follow_at("http://192.0.2.1/r", access).unwrap_err().to_string();
    assert!(error.contains("HTTPS only"), "{error}");
    let error = world.follow_at("https://user:hunter2@example.org/r", Access::default()).unwrap_err().to_string();
    assert!(error.contains("secrets") && !error.contains("hunter2"), "{error}");
    for address in ["ftp://example.org/r", "relative/dir", ""] {
        assert!(world.follow_at(address, Access::default()).is_err(), "{address}");
    }
    let half = Access { client_cert: Some("/no/such".to_owned()), ..Access::default() };
    assert!(world.follow_at("https://example.org/r", half).is_err());
}

#[test]
fn a_channel_is_opened_by_its_own_key_alone() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({ "changes": ["secret words"] }), &[("t", "secret content")]);
    let (repository, keys) = world.at();
    let dir = world.package("tool", "2.0.0", json!({}), &[("t", "beta content")]);
    let channel = "beta".to_owned();
    run(&world.client, &Request::Publish { dir, repository, keys, channel, rollout: Rollout::default() }).unwrap();
    // Who has the file of trust of one channel, and says that it is another's, opens nothing.
    let stable: serde_json::Value = serde_json::from_slice(&fs::read(world.trust(CHANNEL)).unwrap()).unwrap();
    let mut forged = stable.clone();
    forged["channel"] = json!("beta");
    let trust = world.path("forged.trust").to_str().unwrap().to_owned();
    fs::write(&trust, forged.to_string()).unwrap();
    let (repository, (access, ring, every_ms, install)) = (world.at().0, Default::default());
    run(&world.client, &Request::Follow { repository, trust, access, ring, every_ms, install }).unwrap();
    let error = world.install(&["tool"]).unwrap_err();
    assert!(error.to_string().contains("channel's key"), "{error}");
    // The repository tells neither content nor what is said of it.
    let mut waiting = vec![world.repository()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            let told =
                bytes.windows(6).any(|part| part == b"secret") || bytes.windows(12).any(|part| part == b"beta content");
            assert!(!told, "{}", path.display());
        }
    }
    // Files of trust are for their owner alone, and another's is no file of trust.
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(world.trust(CHANNEL)).unwrap().permissions().mode() & 0o077, 0);
    for (field, value) in
        [("format", json!(2)), ("channel_key", json!("short")), ("typo", json!(1)), ("root", json!({}))]
    {
        let mut bad = stable.clone();
        bad[field] = value;
        let trust = world.path("bad.trust").to_str().unwrap().to_owned();
        fs::write(&trust, bad.to_string()).unwrap();
        let (repository, (access, ring, every_ms, install)) = (world.at().0, Default::default());
        let follow = Request::Follow { repository, trust, access, ring, every_ms, install };
        assert!(run(&world.client, &follow).is_err(), "{field}");
    }
}

#[test]
fn equal_files_are_stored_once_and_what_nothing_needs_is_cleaned_up() {
    let world = World::new();
    let large = "large ".repeat(300_000);
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        world.publish("tool", version, json!({}), &[("large", &large), ("version", version)]);
    }
    let contents = || fs::read_dir(world.repository().join("content")).unwrap().count();
    assert_eq!(contents(), 4, "the large file, and three small ones");
    world.follow();
    world.install(&["tool@1.1.0"]).unwrap();
    let (repository, keys) = world.at();
    let cleanup = |dry_run| {
        let (repository, keys, channel) = (repository.clone(), keys.clone(), CHANNEL.to_owned());
        match run(&world.client, &Request::Cleanup { repository, keys, channel, keep: 1, dry_run }).unwrap() {
            Reply::Removed(removed) => removed,
            reply => panic!("{reply:?}"),
        }
    };
    let told = cleanup(true);
    let going = told.iter().filter(|name| name.starts_with("content/")).count();
    assert_eq!((&told[0][..], &told[1][..], going), ("tool 1.0.0", "tool 1.1.0", 2), "{told:?}");
    assert_eq!(contents(), 4);
    let removed = cleanup(false);
    assert!(removed.starts_with(&["tool 1.0.0".to_owned(), "tool 1.1.0".to_owned()]), "{removed:?}");
    assert_eq!(contents(), 2);
    let archived: Vec<_> = fs::read_dir(world.repository().join("archive")).unwrap().collect();
    assert_eq!(archived.len(), 2);
    // What is installed stays, and what is left can be installed.
    assert_eq!(ws::read(&world.client, "version"), b"1.1.0");
    world.update().unwrap();
    assert_eq!(ws::read(&world.client, "version"), b"1.2.0");
    assert!(cleanup(false).is_empty());
}

#[test]
fn a_new_release_of_a_large_file_stores_what_changed() {
    let world = World::new();
    let content: String = ws::noise(9 << 20).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    let changed = format!("{}inserted{}", &content[..4 << 20], &content[4 << 20..]);
    let stored = || -> (u64, usize) {
        let chunks = fs::read_dir(world.repository().join("content")).unwrap();
        let lens: Vec<u64> = chunks.map(|chunk| chunk.unwrap().metadata().unwrap().len()).collect();
        (lens.iter().sum(), lens.len())
    };
    world.publish("tool", "1.0.0", json!({}), &[("large", &content)]);
    let (first, chunks) = stored();
    assert!(first > 9 << 20 && chunks > 3, "{first} {chunks}");
    world.publish("tool", "1.1.0", json!({}), &[("large", &changed)]);
    let (second, more) = stored();
    assert!(more > chunks && more <= chunks + 3, "{chunks} {more}");
    assert!(second - first < first / 2, "{first} {second}");
    world.follow();
    for (version, wanted) in [("1.0.0", &content), ("1.1.0", &changed)] {
        world.install(&[&format!("tool@{version}")]).unwrap();
        assert!(ws::read(&world.client, "large") == wanted.as_bytes(), "{version}");
    }
    // What only the first needs goes with it.
    let ((repository, keys), channel) = (world.at(), CHANNEL.to_owned());
    run(&world.client, &Request::Cleanup { repository, keys, channel, keep: 1, dry_run: false }).unwrap();
    assert!(stored().0 < second && stored().1 < more);
    world.client.restore(world.client.versions().unwrap().last().unwrap().id, &[], false).unwrap();
    world.install(&["tool"]).unwrap();
    assert!(ws::read(&world.client, "large") == changed.as_bytes());
}

#[test]
fn reading_is_slowed_down_to_its_limit_and_can_be_ended() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("a", &"a".repeat(40_000)), ("b", "b")]);
    let access = Access { limit: Some(400_000), ..Access::default() };
    world.follow_at(&world.at().0, access).unwrap();
    let told = Mutex::new(Vec::new());
    let doing = kura::apps::release::Doing {
        told: &|done, total, _| {
            told.lock().push((done, total));
            false
        },
    };
    let install = Request::Install { packages: vec!["tool".to_owned()], force: false };
    let start = std::time::Instant::now();
    let error = kura::apps::release::run(&world.client, &install, &doing).unwrap_err();
    assert!(matches!(error, ReleaseError::Cancelled), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(100), "it cannot have been faster");
    assert_eq!(*told.lock(), [(40_000, 40_001)]);
    assert!(ws::live(&world.client).is_empty());
    assert_eq!(world.state().pending, None);
    world.install(&["tool"]).unwrap();
}

#[test]
fn people_and_programs_are_told_once_by_their_template() {
    let world = World::new();
    let server = Server::start(world.path("nowhere"), None);
    let out = world.path("told").to_str().unwrap().to_owned();
    let script = format!("printf '%s\\n' \"$1\" >> {out}");
    let notify = Notify {
        webhook: Some(format!("{}/hook", server.address)),
        command: ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec(),
        template: Some("{what}: {package} {version}".to_owned()),
        only: vec!["installed".to_owned(), "failed".to_owned()],
        told: 0,
    };
    run(&world.client, &Request::Notify { notify: Some(notify) }).unwrap();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    let bad = json!({ "checks": [{ "name": "no", "command": ["false"], "timeout_ms": 60_000 }] });
    world.publish("tool", "2.0.0", bad, &[("t", "2")]);
    world.update().unwrap_err();
    run(&world.client, &Request::Skip { packages: vec!["tool@3.0.0".to_owned()] }).unwrap();
    assert_eq!(fs::read_to_string(&out).unwrap(), "installed: tool 1.0.0\nfailed: tool 2.0.0\n");
    let posted = server.posted.lock().clone();
    assert_eq!(posted.len(), 2);
    let last: serde_json::Value = serde_json::from_str(&posted[1]).unwrap();
    assert_eq!((&last["message"], &last["event"]["what"]), (&json!("failed: tool 2.0.0"), &json!("failed")));
    let (events, _) = world.client.events(0);
    assert!(
        events.iter().any(|line| line.contains("\"release\"") && line.contains("skipped: tool 3.0.0")),
        "{events:?}"
    );
}

#[test]
fn users_say_what_they_think_and_reports_that_failed_are_sent_later() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "1")]);
    world.follow();
    world.install(&["tool"]).unwrap();
    let note = |note: &str| Request::Feedback { packages: vec!["tool@1.0.0".to_owned()], note: note.to_owned() };
    run(&world.client, &note("it is slow")).unwrap();
    assert_eq!(world.standings()[0].notes, ["it is slow"]);
    // The repository cannot be written to for a while.
    fs::rename(world.repository(), world.path("away")).unwrap();
    world.done(&Request::Rollback { packages: vec!["tool".to_owned()] }).unwrap();
    assert!(world.state().reports.iter().any(|report| !report.sent && report.feedback.result == Outcome::RolledBack));
    fs::remove_dir_all(world.repository()).ok();
    fs::rename(world.path("away"), world.repository()).unwrap();
    world.decisions();
    let standing = world.standings().remove(0);
    assert_eq!((standing.totals.rolled_back, standing.rollback_rate), (1, 1.0));
    // What somebody else puts there is no report.
    let feedback = world.repository().join("feedback");
    let name = fs::read_dir(&feedback).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    let (prefix, _) = name.rsplit_once('.').unwrap();
    fs::write(feedback.join(format!("{prefix}.00000000-0000-0000-0000-000000000000")), b"nonsense").unwrap();
    fs::copy(feedback.join(&name), feedback.join(format!("{prefix}.somebody"))).unwrap();
    assert_eq!(world.standings()[0].totals.samples(), 1);
}
