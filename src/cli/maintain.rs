//! `kura forget`, `kura gc` and `kura stored`.

use clap::Args;

use super::Context;
use super::config::parse_duration_ms;
use super::door::{Door, Purpose};
use super::output::{Output, local_time, outcome, size};
use super::state::change;
use crate::control::{Exit, Failure, ForgetMode, KeepRules, Request, VersionInfo};

/// Take versions from the list that no rule keeps
///
/// Rules are looked at from the newest version to the oldest, and what any of them keeps is kept. The newest version
/// and those with names stay in any case (`kura untag` takes a name away). Without rules, the policy of the workspace
/// counts. What forgotten versions hold is freed by `kura gc --delete`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura forget --keep-last 20 --keep-daily 14 --keep-monthly 12 --dry-run
  kura forget --keep-within 30d
  kura forget --keep-daily 30 --set    makes this the policy of the workspace
  kura forget                          applies the policy")]
pub struct ForgetArgs {
    /// Keep the newest so many
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    keep_last: u32,
    /// Keep the newest of each of the last so many hours that have versions
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    keep_hourly: u32,
    /// The same for days
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    keep_daily: u32,
    /// The same for weeks
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    keep_weekly: u32,
    /// The same for months
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    keep_monthly: u32,
    /// The same for years
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    keep_yearly: u32,
    /// Keep what is at most so much older than the newest version (12h, 30d, 1y)
    #[arg(long, value_name = "DURATION", value_parser = parse_age_s)]
    keep_within: Option<u64>,
    /// Keep what has this name; may be given several times
    #[arg(long, value_name = "NAME")]
    keep_tag: Vec<String>,
    /// Only say what would be forgotten
    #[arg(short = 'n', long, conflicts_with = "set")]
    dry_run: bool,
    /// Make the rules the policy of the workspace, for maintaining mounts; without rules, take it away
    #[arg(long)]
    set: bool,
}

/// Say what the store holds that no version needs, or free it
///
/// Objects that nobody needs are first named as such, and deleted when the grace has passed, so that clients which
/// still read an older state can go on. Works beside mounts, on this and other machines; can be ended and repeated.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura gc                        says how much could be freed
  kura gc --delete               begins to free it, or goes on with it
  kura gc --delete --grace 0s    frees it now")]
pub struct GcArgs {
    /// Free it
    #[arg(long)]
    delete: bool,
    /// How long objects stay after nobody needs them any more (30m, 12h, 2d) [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = parse_age_s, requires = "delete")]
    grace: Option<u64>,
}

/// Say what the store holds, and how that grew
///
/// Lists the store. What was deleted is gone from the earlier sums, too: they are of what lies there now.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura stored
  kura stored --json | jq .bytes")]
pub struct StoredArgs {}

/// Lines that tell how the store grew.
const GROWTH_LINES_MAX: usize = 12;

/// Seconds from `90s`, `30m`, `12h`, `7d`, `2w`, `1y`.
fn parse_age_s(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "d" => 86_400,
        "w" => 7 * 86_400,
        "y" => 365 * 86_400,
        _ => return parse_duration_ms(text).map(|ms| ms / 1000),
    };
    let number: Option<u64> = digits.trim().parse().ok();
    number.and_then(|number| number.checked_mul(factor)).ok_or_else(|| format!("`{text}` is no duration; write 30d"))
}

/// Runs `kura forget`.
pub fn forget(context: &Context, args: ForgetArgs) -> Result<Exit, Failure> {
    let keep = KeepRules {
        last: args.keep_last,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
        within_s: args.keep_within.unwrap_or(0),
        tags: args.keep_tag,
    };
    let mode = match (args.set, args.dry_run) {
        (true, _) => ForgetMode::SetPolicy,
        (_, true) => ForgetMode::DryRun,
        _ => ForgetMode::Apply,
    };
    let request = Request::Forget { keep, mode };
    if mode != ForgetMode::DryRun {
        return change(context, &request);
    }
    let (door, _) = Door::open(context, Purpose::Read)?;
    let reply = door.ask(&request);
    door.close()?;
    let reply = reply?;
    if reply.ok && !context.output.json {
        show_verdicts(&context.output, &reply.data)?;
    }
    context.output.reply(&reply)
}

fn show_verdicts(output: &Output, data: &serde_json::Value) -> Result<(), Failure> {
    let version = |value: &serde_json::Value| serde_json::from_value::<VersionInfo>(value.clone()).ok();
    let line = |info: &VersionInfo, what: &str| {
        let name = info.names.join(", ");
        format!("{}  {}  {what} {name}", info.id, local_time(&info.time)).trim_end().to_owned()
    };
    let items = |key: &str| data.get(key).and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    for kept in items("kept") {
        let reasons: Vec<String> =
            kept.get("reasons").and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default();
        if let Some(info) = kept.get("version").and_then(version) {
            output.line(&line(&info, &format!("keep ({})", reasons.join(", "))))?;
        }
    }
    for info in items("forgotten").iter().filter_map(version) {
        output.line(&line(&info, "forget"))?;
    }
    Ok(())
}

/// Runs `kura gc`.
pub fn gc(context: &Context, args: &GcArgs) -> Result<Exit, Failure> {
    let request = Request::Gc { delete: args.delete, grace_ms: args.grace.map(|grace| grace.saturating_mul(1000)) };
    if args.delete {
        return change(context, &request);
    }
    let (door, _) = Door::open(context, Purpose::Read)?;
    let reply = door.ask(&request);
    door.close()?;
    context.output.reply(&reply?)
}

/// Runs `kura stored`.
pub fn stored(context: &Context, _: &StoredArgs) -> Result<Exit, Failure> {
    let (door, _) = Door::open(context, Purpose::Read)?;
    let reply = door.ask(&Request::Stored {});
    door.close()?;
    let reply = reply?;
    let (exit, output) = (outcome(&reply)?, &context.output);
    if output.json {
        output.json(&reply.data)?;
        return Ok(exit);
    }
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
    let points = reply.data["points"].as_array().map(Vec::as_slice).unwrap_or_default();
    // From the newest backwards, so that the last line is the present.
    let step = points.len().div_ceil(GROWTH_LINES_MAX).max(1);
    for point in points.iter().rev().step_by(step).collect::<Vec<_>>().into_iter().rev() {
        let time = local_time(point["time"].as_str().unwrap_or_default());
        output.line(&format!(
            "{time}  {:>11}  {:>9} objects",
            size(number(&point["bytes"])),
            number(&point["objects"])
        ))?;
    }
    let (objects, bytes) = (number(&reply.data["objects"]), number(&reply.data["bytes"]));
    output.line(&format!("{objects} objects, {}", size(bytes)))?;
    Ok(exit)
}
