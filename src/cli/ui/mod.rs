//! `kura ui`: looking at a workspace in the terminal.
//!
//! Uses: `control` through [`View`](super::view::View), as the page of `kura web` does.
//!
//! A screen is a page of rows, each of which may lead to another; pages lie on each other and Escape goes back. What a
//! page shows is fetched when it is opened (`pages`), drawn by `draw`, and acted on by `app`.
//!
//! Invariants:
//! - nothing is changed without a question that shows what would change;
//! - nothing that a file or a name holds reaches the terminal as a control character;
//! - the terminal is as it was before however this ends.
//!
//! Lock order: none; it has one thread.

mod app;
mod draw;
mod pages;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::view::View;
use super::{Context, interrupt, web};
use crate::control::{Exit, Failure};
use app::App;

/// How often the state of the workspace is asked for.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// Longest wait for a key before looking whether to end.
const TICK: Duration = Duration::from_millis(250);

/// Look at a workspace in the terminal: history, files, conflicts, what is going on
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura ui                     the workspace around the current directory, or your default one
  kura ui ~/work

Keys: 1 to 4 choose a screen, the arrows or j and k a row, Enter opens it, Escape goes back,
? lists the others, q ends.")]
pub struct UiArgs {
    /// Where the workspace is mounted, or its store [default: as for every command]
    #[arg(value_name = "MOUNTPOINT|STORE")]
    place: Option<String>,
    /// Change nothing in a workspace that is not mounted
    #[arg(long)]
    read_only: bool,
}

/// Runs `kura ui`.
pub fn run(context: &Context, args: &UiArgs) -> Result<Exit, Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "`kura ui` needs a terminal")
            .hint("`kura log`, `diff`, `conflicts` and `status` print the same"));
    }
    let failed = |error: std::io::Error| Failure::new(Exit::Other, format!("the terminal cannot be used: {error}"));
    let view = View::open(context, web::target(context, args.place.as_deref())?, args.read_only)?;
    let is_ended = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, is_ended.clone()).map_err(failed)?;
    }
    interrupt::hand_over();
    let terminal = ratatui::try_init().map_err(failed);
    let shown = terminal.and_then(|mut terminal| {
        let shown = show(&mut terminal, &view, &is_ended).map_err(failed);
        ratatui::restore();
        shown
    });
    let closed = view.close();
    shown?;
    closed
}

fn show(terminal: &mut ratatui::DefaultTerminal, view: &View, is_ended: &AtomicBool) -> std::io::Result<()> {
    let mut app = App::new(view);
    let mut asked = Instant::now();
    while !app.is_over() && !is_ended.load(Ordering::SeqCst) {
        terminal.draw(|frame| draw::draw(frame, &mut app))?;
        if event::poll(TICK)? {
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => app.key(key),
                _ => {}
            }
        }
        if asked.elapsed() >= STATUS_EVERY {
            app.refresh();
            asked = Instant::now();
        }
    }
    Ok(())
}
