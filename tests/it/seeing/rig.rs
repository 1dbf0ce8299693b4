//! A workspace with something to see, and the server of its page.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::cli::support::{Home, Mount, Running, wait_for};

/// Red or blue, one pixel.
fn picture(colour: [u8; 3]) -> Vec<u8> {
    let mut raw = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(data);
        raw.extend((data.len() as u32).to_be_bytes());
        raw.extend(kind);
        raw.extend(data);
        raw.extend(crc.sum().to_be_bytes());
    };
    let (wide, high) = (64u32, 48u32);
    let mut head = [wide.to_be_bytes(), high.to_be_bytes()].concat();
    head.extend([8, 2, 0, 0, 0]);
    chunk(b"IHDR", &head);
    let mut row = vec![0];
    row.extend(colour.repeat(wide as usize));
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&row.repeat(high as usize)).unwrap();
    chunk(b"IDAT", &packed.finish().unwrap());
    chunk(b"IEND", &[]);
    raw
}

/// Two named states, a conflict, names that are markup, and a link that leads out.
pub fn fill(home: &Home, mount: &Mount) {
    fs::write(mount.file("notes.txt"), "alpha\nbeta\ngamma\n").unwrap();
    fs::write(mount.file("picture.png"), picture([200, 40, 40])).unwrap();
    fs::create_dir(mount.file("inner")).unwrap();
    fs::write(mount.file("inner/deep.txt"), "deep\n").unwrap();
    home.ok(&mount.path, ["snapshot", "-m", "the first state", "--name", "v1", "-w", mount.path.to_str().unwrap()]);
    fs::write(mount.file("notes.txt"), "alpha\nbetter\ngamma\n").unwrap();
    fs::write(mount.file("picture.png"), picture([40, 60, 200])).unwrap();
    fs::write(mount.file("<img src=x onerror=alert(1)>.txt"), "markup\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", mount.file("out")).unwrap();
    std::os::unix::fs::symlink("/etc", mount.file("outdir")).unwrap();
    home.ok(&mount.path, ["snapshot", "-m", "the second state", "-w", mount.path.to_str().unwrap()]);
    fs::write(mount.file("plan.md"), "ours\nshared\n").unwrap();
    fs::write(mount.file("conflict-20261121.101500.plan.md"), "theirs\nshared\n").unwrap();
    home.ok(&mount.path, ["flush", "--wait=60s", "-w", mount.path.to_str().unwrap()]);
}

/// `kura web`, ended with the test.
pub struct Web {
    pub child: Running,
    /// What opens it, once.
    pub address: String,
    /// `NAME.localhost:PORT`.
    pub host: String,
}

/// An answer of the server.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Web {
    pub fn start(home: &Home, place: &Path) -> Self {
        let mut command = home.kura(["web", "--json"]);
        let child: Child = command.arg(place).stdout(Stdio::piped()).spawn().unwrap();
        let mut child = Running(child);
        let mut line = String::new();
        BufReader::new(child.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no address: {line:?}"));
        let address = told["address"].as_str().unwrap().to_owned();
        let host = address.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
        Self { child, address, host }
    }

    pub fn token(&self) -> &str {
        self.address.rsplit("token=").next().unwrap()
    }

    /// Sends a request as it is.
    pub fn raw(&self, request: &str) -> Answer {
        let port = self.host.rsplit(':').next().unwrap();
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        // A server that refuses a request may cut it.
        stream.write_all(request.as_bytes()).ok();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    /// GET with headers of one's own, each ended by a line end.
    pub fn get(&self, path: &str, headers: &str) -> Answer {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", self.host))
    }

    /// POST from the page itself, with the cookie.
    pub fn post(&self, path: &str, cookie: &str, body: &Value) -> Answer {
        let headers = format!("Origin: http://{}\r\nCookie: {cookie}\r\n", self.host);
        self.post_with(path, &headers, body)
    }

    pub fn post_with(&self, path: &str, headers: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            self.host,
            body.len()
        ))
    }

    /// Opens the session; its cookie.
    pub fn session(&self) -> String {
        let answer = self.post("/api/session", "", &serde_json::json!({ "token": self.token() }));
        assert_eq!(answer.status, 204, "{answer:?}");
        let line = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        assert!(line.contains("httponly") && line.contains("samesite=strict"), "{line}");
        line.split(';').next().unwrap().to_owned()
    }
}

/// Waits until a file of a mount holds the text: the kernel is told of a change a moment after it was answered.
pub fn becomes(path: &Path, text: &str) {
    let found = || fs::read_to_string(path).unwrap();
    assert!(wait_for(Duration::from_secs(120), || found() == text), "{}: {}", path.display(), found());
}
