//! `kura web`: a page on this machine to look at a workspace with.
//!
//! Uses: `control` through [`View`], as every other command does; nothing of the workspace is known here.
//!
//! The server has an async runtime of its own with one thread; what asks the workspace runs on threads for blocking
//! work, few of them. It listens on the loopback address alone, under a name of its own below `localhost`.
//!
//! Invariants:
//! - nothing but the page itself is given without the session's cookie, and the cookie only for the token, once;
//! - a request that another page may have sent (`Host`, `Origin`, `Sec-Fetch-Site`) is refused;
//! - what a version holds is never taken for a page: it comes as an image or as a download, sandboxed.
//!
//! Lock order: none of its locks is held while another is taken.

mod assets;
mod compare;
mod guard;
mod routes;
mod stream;
mod summary;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use clap::Args;
use tokio::sync::oneshot;

use super::config::store_url;
use super::door::{Target, resolved};
use super::view::View;
use super::{Context, interrupt, mounts};
use crate::control::{Exit, Failure};
pub use compare::compare_texts;
use guard::Guard;
pub use routes::page_understands;

/// Requests that wait for the workspace, and downloads that wait for the browser, at the same time.
const THREADS_MAX: usize = 48;

/// Look at a workspace in the browser: history, differences, conflicts, what is going on
///
/// Serves a page on this machine alone and prints its address, which opens it once: whoever opens it first has the
/// session. Ctrl-C ends it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura web                    the workspace around the current directory, or your default one
  kura web ~/work
  kura web 's3://my-bucket/work?region=eu-central-1'
  kura web --port 8080        on another machine: ssh -L 8080:127.0.0.1:8080 HOST, then open the address here")]
pub struct WebArgs {
    /// Where the workspace is mounted, or its store [default: as for every command]
    #[arg(value_name = "MOUNTPOINT|STORE")]
    place: Option<String>,
    /// Listen on this port [default: any that is free]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Change nothing in a workspace that is not mounted
    #[arg(long)]
    read_only: bool,
}

/// The workspace that a place means, or the usual one.
pub(super) fn target(context: &Context, place: Option<&str>) -> Result<Target, Failure> {
    let Some(text) = place else { return Target::find(context) };
    if !text.contains("://")
        && let Some(mount) = mounts::mount_around(&resolved(text.as_ref())?)
    {
        return Ok(Target::Mount(mount));
    }
    Target::of_store(context, store_url(text)?)
}

/// Runs `kura web`.
pub fn run(context: &Context, args: &WebArgs) -> Result<Exit, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Other, format!("port {} cannot be listened on: {error}", args.port))
            .hint("another program may use it; without --port any free one is taken")
    };
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port))).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let view = View::open(context, target(context, args.place.as_deref())?, args.read_only)?;
    let (guard, address) = Guard::new(port);
    let server = routes::Server::new(view, guard);
    let told = match context.output.json {
        true => context.output.json(&serde_json::json!({ "address": address, "workspace": server.view.name() })),
        false => context
            .output
            .line(&format!("{} can be looked at here, once; Ctrl-C ends it:\n\n    {address}\n", server.view.name())),
    };
    let served = told.and_then(|()| serve(listener, server.clone()));
    let closed = server.view.close();
    served?;
    closed
}

/// Serves until SIGINT or SIGTERM comes.
fn serve(listener: TcpListener, server: Arc<routes::Server>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Other, format!("the page cannot be served: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS_MAX)
        .build()
        .map_err(failed)?;
    let ended = signalled()?;
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::spawn(axum::serve(listener, routes::router(server)).into_future());
        ended.await.map_err(std::io::Error::other)
    });
    // What still runs has its own end; nobody waits for its answer.
    runtime.shutdown_background();
    served.map_err(failed)
}

/// Told at the first SIGINT or SIGTERM; the second ends the process.
fn signalled() -> Result<oneshot::Receiver<()>, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Other, format!("signals cannot be handled: {error}"));
    let (tell, told) = oneshot::channel();
    let (mut heard, sender) = UnixStream::pair().map_err(failed)?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, sender.try_clone().map_err(failed)?).map_err(failed)?;
    }
    interrupt::hand_over();
    std::thread::spawn(move || {
        if heard.read_exact(&mut [0]).is_ok() {
            // Nobody listens when serving ended by itself.
            tell.send(()).ok();
            interrupt::end_at_once_again();
        }
    });
    Ok(told)
}
