//! Real servers on this machine, each with a directory, a port and a configuration of its own; ended with the test.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
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
        // Some have children of their own, which end with them only when they are asked to.
        if let Ok(id) = i32::try_from(self.child.id()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM).ok();
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) && self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            std::thread::sleep(Duration::from_millis(5));
        }
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
             StrictModes no\nUsePAM {1}\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             Subsystem sftp internal-sftp\nMaxStartups 100\nLogLevel VERBOSE\n",
            dir.display(),
            if is_locked() { "yes" } else { "no" }
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

/// A certificate for `name` (as OpenSSL writes alternative names) that signs itself, in `stem.pem`; the key in
/// `stem.key`.
pub fn certificate(dir: &Path, stem: &str, name: &str, is_expired: bool) {
    let run = |args: &[&str]| {
        let done = Command::new("openssl").args(args).current_dir(dir).stderr(Stdio::null()).status().unwrap();
        assert!(done.success(), "openssl {args:?}");
    };
    let (key, pem, request) = (format!("{stem}.key"), format!("{stem}.pem"), format!("{stem}.csr"));
    run(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key]);
    std::fs::set_permissions(dir.join(&key), std::fs::Permissions::from_mode(0o600)).unwrap();
    run(&["req", "-new", "-key", &key, "-out", &request, "-subj", "/CN=kura test"]);
    // Not as `req -x509` makes it: that would be an authority, which no server may be.
    std::fs::write(dir.join("extensions"), format!("subjectAltName={name}\n")).unwrap();
    let days = if is_expired { "-1" } else { "30" };
    let signed = ["x509", "-req", "-in", &request, "-signkey", &key, "-out", &pem, "-days", days];
    run(&[&signed[..], &["-extfile", "extensions"]].concat());
}

/// The password of every user of the servers below.
pub const PASSWORD: &str = "pass-to-be-kept-secret";

fn hashed(kind: &str) -> String {
    let made = Command::new("openssl").args(["passwd", kind, PASSWORD]).output().unwrap();
    assert!(made.status.success());
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// ProFTPD with the user `me`; `more` goes into its configuration, after `TLS` when `has_tls`.
pub fn proftpd(has_tls: bool, more: &str) -> Server {
    let dir = directory();
    certificate(dir.path(), "server", "IP:127.0.0.1", false);
    let (uid, gid) = (nix::unistd::Uid::effective(), nix::unistd::Gid::effective());
    let user = format!("me:{}:{uid}:{gid}::{}/files:/bin/sh\n", hashed("-6"), dir.path().display());
    std::fs::write(dir.path().join("users"), user).unwrap();
    std::fs::set_permissions(dir.path().join("users"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let name = |id: Option<String>| id.unwrap_or_else(|| "root".to_owned());
    let user = name(nix::unistd::User::from_uid(uid).unwrap().map(|user| user.name));
    let group = name(nix::unistd::Group::from_gid(gid).unwrap().map(|group| group.name));
    start(dir, |dir, port| {
        let place = dir.display();
        let tls = format!(
            "LoadModule mod_tls.c\nTLSEngine on\nTLSRequired on\nTLSLog {place}/tls.log\n\
             TLSECCertificateFile {place}/server.pem\nTLSECCertificateKeyFile {place}/server.key\n"
        );
        let config = format!(
            "ServerName kura\nServerType standalone\nDefaultAddress 127.0.0.1\nSocketBindTight on\nPort {port}\n\
             UseIPv6 off\nUseReverseDNS off\nUser {user}\nGroup {group}\nRootLogin on\nPidFile {place}/pid\n\
             ScoreboardFile {place}/score\nSystemLog {place}/system.log\nTransferLog none\nWtmpLog off\n\
             DelayEngine off\nAuthOrder mod_auth_file.c\nAuthUserFile {place}/users\nRequireValidShell off\n\
             AllowOverwrite on\nUmask 022\nModulePath /usr/lib/proftpd\n{}{more}\n",
            if has_tls { &tls } else { "" }
        );
        std::fs::write(dir.join("config"), config).unwrap();
        let mut command = Command::new(program("proftpd"));
        command.args(["-n", "-q", "-c"]).arg(dir.join("config"));
        command
    })
}

/// Apache with `/da v` as a WebDAV collection, over TLS; `more` goes into its configuration.
pub fn apache(more: &str) -> Server {
    let dir = directory();
    certificate(dir.path(), "server", "IP:127.0.0.1", false);
    std::fs::create_dir(dir.path().join("locks")).unwrap();
    std::fs::write(dir.path().join("users"), format!("me:{}\n", hashed("-apr1"))).unwrap();
    // Started by root it becomes another user, who has to get at the files.
    for (name, mode) in [("", 0o755), ("files", 0o777), ("locks", 0o777)] {
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let user = if nix::unistd::Uid::effective().is_root() { "User www-data\nGroup www-data\n" } else { "" };
    start(dir, |dir, port| {
        let place = dir.display();
        let modules = [
            "mpm_event",
            "authn_core",
            "authn_file",
            "authz_core",
            "authz_user",
            "auth_basic",
            "dav",
            "dav_fs",
            "alias",
            "ssl",
            "setenvif",
        ];
        let modules: String = modules
            .iter()
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .collect();
        let config = format!(
            "ServerRoot {place}\nServerName 127.0.0.1\nListen 127.0.0.1:{port}\nPidFile {place}/pid\n\
             ErrorLog {place}/error.log\n{modules}{user}DavLockDB {place}/locks/db\nThreadsPerChild 8\n\
             SSLEngine on\nSSLCertificateFile {place}/server.pem\nSSLCertificateKeyFile {place}/server.key\n\
             Alias \"/da v\" {place}/files\n<Directory {place}/files>\nDav On\nAuthType Basic\nAuthName kura\n\
             AuthUserFile {place}/users\nRequire valid-user\n</Directory>\n{more}\n"
        );
        std::fs::write(dir.join("config"), config).unwrap();
        let mut command = Command::new(program("apache2"));
        command.args(["-DFOREGROUND", "-f"]).arg(dir.join("config"));
        command
    })
}

/// Whether this user's account is locked, as that of root often is: then the daemon lets it in through PAM only.
fn is_locked() -> bool {
    let shadow = std::fs::read_to_string("/etc/shadow").unwrap_or_default();
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap();
    let name = user.map_or_else(|| "root".to_owned(), |user| user.name);
    shadow.lines().any(|line| line.starts_with(&format!("{name}:!")))
}

/// A way to a server on which two of three connections break, each after some more bytes than the one before.
pub fn breaking(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        // Ends with the test's process; each connection when one of its ends does.
        for (number, client) in listener.incoming().flatten().enumerate() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            let limit = if number % 3 == 2 { u64::MAX } else { 100 + 1777 * number as u64 };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || {
                    std::io::copy(&mut std::io::Read::take(&mut from, limit), &mut to).ok();
                    for end in [from, to] {
                        end.shutdown(std::net::Shutdown::Both).ok();
                    }
                });
            }
        }
    });
    port
}
