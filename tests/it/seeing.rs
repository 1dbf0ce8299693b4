//! What people look at: the page of `kura web` in a browser, `kura ui` in a terminal.

mod page;
mod refused;
mod rig;
mod screen;
