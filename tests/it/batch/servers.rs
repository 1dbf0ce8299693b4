//! Real servers on this machine, each with a directory, a port and a configuration of its own; ended with the test.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kura::apps::batch::SshAddress;
use tempfile::TempDir;

pub struct Server {
    pub dir: TempDir,
    pub port: u16,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Where a server program is: those of the system are not on everybody's path.
pub fn program(name: &str) -> PathBuf {
    let found =
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"].iter().map(|dir| Path::new(dir).join(name));
    found.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{name} is not installed"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a server on a free port, and waits until it answers; another port when somebody was faster.
fn start(dir: TempDir, command: impl Fn(&Path, u16) -> Command) -> Server {
    let mut dir = Some(dir);
    for _ in 0..5 {
        let port = free_port();
        let log = std::fs::File::create(dir.as_ref().unwrap().path().join("server.log")).unwrap();
        let mut command = command(dir.as_ref().unwrap().path(), port);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Server { dir: dir.take().unwrap(), port, child };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().ok();
        child.wait().ok();
    }
    let text = std::fs::read_to_string(dir.unwrap().path().join("server.log")).unwrap_or_default();
    panic!("the server does not start: {text}");
}

fn directory() -> TempDir {
    let dir = tempfile::Builder::new().prefix("kura-server-").tempdir().unwrap();
    std::fs::create_dir(dir.path().join("files")).unwrap();
    dir
}

fn keygen(path: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(made.success());
}

/// OpenSSH, with the key in `client` and its host key in `known_hosts`.
pub fn sshd() -> Server {
    let dir = directory();
    let path = dir.path().to_owned();
    keygen(&path.join("host"));
    keygen(&path.join("client"));
    std::fs::copy(path.join("client.pub"), path.join("authorized")).unwrap();
    // Where the daemon of the system would keep its place; it insists on it when it is started by root.
    if nix::unistd::Uid::effective().is_root() {
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let server = start(dir, |dir, port| {
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             Subsystem sftp internal-sftp\nMaxStartups 100\nLogLevel VERBOSE\n",
            dir.display()
        );
        std::fs::write(dir.join("config"), config).unwrap();
        let mut command = Command::new(program("sshd"));
        command.args(["-D", "-e", "-f"]).arg(dir.join("config"));
        command
    });
    let host = std::fs::read_to_string(server.dir.path().join("host.pub")).unwrap();
    let known = format!("[127.0.0.1]:{} {host}", server.port);
    std::fs::write(server.dir.path().join("known_hosts"), known).unwrap();
    server
}

impl Server {
    pub fn ssh(&self) -> SshAddress {
        SshAddress {
            host: "127.0.0.1".to_owned(),
            port: Some(self.port),
            user: None,
            key_file: Some(self.dir.path().join("client")),
            known_hosts: Some(self.dir.path().join("known_hosts")),
        }
    }

    pub fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }
}

/// Redis without a disk, with a password.
pub fn redis() -> Server {
    start(directory(), |dir, port| {
        let mut command = Command::new(program("redis-server"));
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--requirepass", "secret-of-redis", "--dir"]).arg(dir);
        command
    })
}
