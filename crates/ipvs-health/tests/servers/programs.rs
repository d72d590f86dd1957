//! Real servers, on loopback, with files of their own.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that ends with this.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) at: SocketAddr,
    pub(crate) folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The path of a program; `None`, and words on it, if it is not there.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(more);
    let found = folders.map(|folder| folder.join(program)).find(|path| path.is_file());
    if found.is_none() {
        // A closed stderr is no reason to fail.
        let said = "which is not installed";
        let _ = writeln!(std::io::stderr(), "SKIPPED: what needs {program}, {said}");
    }
    found
}

/// The same of a file by its whole path.
pub(crate) fn is_there(path: &str) -> Option<()> {
    if Path::new(path).is_file() {
        return Some(());
    }
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "SKIPPED: what needs {path}, which is not there");
    None
}

/// A port that is free just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Starts a server, and waits until it listens.
pub(crate) fn start(mut command: Command, port: u16, folder: TempDir) -> Server {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut server = Server { child: command.spawn().unwrap(), at, folder };
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(at).is_err() {
        let ended = server.child.try_wait().unwrap();
        assert!(ended.is_none(), "the server ended: {ended:?}");
        assert!(Instant::now() < deadline, "the server does not listen");
        // It tells nobody when it does.
        std::thread::sleep(Duration::from_millis(5));
    }
    server
}

/// Makes a key and a certificate for `localhost` in a folder, signed by itself.
pub(crate) fn certificate(folder: &Path, days: &str) -> Option<()> {
    let output = Command::new(find("openssl")?)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", days, "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        // That of a signer is none that a server may have.
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"))
        .output();
    assert!(output.unwrap().status.success());
    Some(())
}

/// Starts nginx with these servers, in whose text `$FOLDER` and `$PORT` are replaced.
pub(crate) fn nginx(servers: &str, folder: TempDir) -> Option<Server> {
    let program = find("nginx")?;
    let (port, at) = (free_port(), folder.path().display().to_string());
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {at}/{what};"));
    let servers = servers.replace("$FOLDER", &at).replace("$PORT", &port.to_string());
    let text = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
         events {{}}\nhttp {{ access_log off; {}\n{servers} }}\n",
        temporary.join(" "),
    );
    fs::write(folder.path().join("nginx.conf"), text).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(folder.path().join("nginx.conf"));
    command.arg("-e").arg(folder.path().join("error.log")).arg("-p").arg(folder.path());
    Some(start(command, port, folder))
}
