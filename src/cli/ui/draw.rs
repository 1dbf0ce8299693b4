//! How it looks.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, List, ListItem, ListState, Paragraph, Wrap};

use super::app::{App, Question};
use super::pages::{Look, Row};

const TABS: [&str; 4] = ["1 Timeline", "2 Files", "3 Conflicts", "4 Now"];

fn style(look: Look) -> Style {
    match look {
        Look::Plain => Style::new(),
        Look::Added => Style::new().fg(Color::Green),
        Look::Removed => Style::new().fg(Color::Red),
        Look::Changed => Style::new().fg(Color::Cyan),
        Look::Dim => Style::new().add_modifier(Modifier::DIM),
        Look::Head => Style::new().add_modifier(Modifier::BOLD),
    }
}

fn line(row: &Row) -> Line<'_> {
    Line::styled(row.text.as_str(), style(row.look))
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, app: &mut App<'_>) {
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    let colour = if app.is_well { Color::Green } else { Color::Yellow };
    let tab = |(at, text): (usize, &'static str)| {
        let chosen = if at == app.tab { Modifier::REVERSED } else { Modifier::empty() };
        [Span::styled(format!(" {text} "), Style::new().add_modifier(chosen)), Span::raw(" ")]
    };
    let mut head: Vec<Span<'_>> = TABS.into_iter().enumerate().flat_map(tab).collect();
    head.push(Span::styled(app.state.as_str(), Style::new().fg(colour)));
    frame.render_widget(Line::from(head), top);
    if let Some(page) = app.pages.last() {
        // Only what is in sight is made into items, however long the list is.
        let height = usize::from(middle.height.saturating_sub(2)).max(1);
        let first = page.selected.saturating_sub(height / 2).min(page.rows.len().saturating_sub(height));
        let shown = page.rows.iter().skip(first).take(height).map(|row| ListItem::new(line(row)));
        let place = format!(" {}/{} ", (page.selected + 1).min(page.rows.len()), page.rows.len());
        let block = Block::bordered().title(format!(" {} ", page.title)).title_bottom(place);
        let list = List::new(shown).block(block).highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state = ListState::default().with_selected(Some(page.selected - first.min(page.selected)));
        frame.render_stateful_widget(list, middle, &mut state);
    }
    let keys = "Enter open  Esc back  d since  r restore  s snapshot  h history  ? keys  q end";
    let said = if app.said.is_empty() { keys } else { app.said.as_str() };
    frame.render_widget(Line::styled(said, Style::new().add_modifier(Modifier::DIM)), bottom);
    if let Some(question) = &app.question {
        ask(frame, question);
    }
}

fn ask(frame: &mut Frame<'_>, question: &Question) {
    let area = frame.area();
    let wide = area.width.saturating_sub(4).min(100);
    let rows = u16::try_from(question.rows.len()).unwrap_or(u16::MAX).max(1);
    let high = rows.saturating_add(5).min(area.height.saturating_sub(2));
    let place = Rect::new((area.width - wide) / 2, area.height.saturating_sub(high) / 2, wide, high);
    let mut lines = vec![Line::styled(question.title.as_str(), style(Look::Head))];
    let room = usize::from(high).saturating_sub(4);
    lines.extend(question.rows.iter().skip(question.first).take(room).map(line));
    if let Some(typed) = &question.typed {
        lines.push(Line::raw(format!("> {typed}█")));
    }
    let below = question.rows.len().saturating_sub(question.first + room);
    if below > 0 {
        lines.push(Line::styled(format!("and {below} more, by ↓"), style(Look::Dim)));
    }
    let block = Block::bordered().title_bottom(format!(" {} ", question.keys()));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), place);
}
