//! Routing rules that choose other tables than the mirror holds.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of netlink's dozens of attributes each function wants one"
)]

use std::fmt::Write as _;

use futures_util::TryStreamExt as _;
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion};

use super::{RoutesError, with_netlink};

/// The rules every namespace has: their priorities and tables, IPv4's last one included (`net/ipv4/fib_rules.c`).
const DEFAULTS: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

/// Descriptions of the rules in the calling thread's namespace beside those every namespace has.
pub fn policy_rules() -> Result<Vec<String>, RoutesError> {
    with_netlink(|handle| async move {
        let mut found = Vec::new();
        for family in [IpVersion::V4, IpVersion::V6] {
            found.extend(of_family(&handle, family).await?);
        }
        Ok(found)
    })
}

async fn of_family(handle: &Handle, family: IpVersion) -> Result<Vec<String>, RoutesError> {
    let option = if matches!(family, IpVersion::V4) { "-4" } else { "-6" };
    let rules: Vec<RuleMessage> = match handle.rule().get(family).execute().try_collect().await {
        Ok(rules) => rules,
        // A kernel without this family, or without rules, has none.
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::EOPNOTSUPP => {
            Vec::new()
        }
        Err(source) => return Err(RoutesError::Request { what: "read the routing rules", source }),
    };
    let others = rules.iter().filter(|rule| !DEFAULTS.contains(&(priority(rule), table(rule))));
    Ok(others.map(|rule| describe(rule, option)).collect())
}

fn priority(rule: &RuleMessage) -> u32 {
    let given = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    given.unwrap_or(0)
}

/// The table a rule leads to.
pub(super) fn table(rule: &RuleMessage) -> u32 {
    let given = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    given.unwrap_or_else(|| u32::from(rule.header.table))
}

/// The mark a rule is for.
pub(super) fn mark(rule: &RuleMessage) -> Option<u32> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::FwMark(mark) => Some(*mark),
        _ => None,
    })
}

fn describe(rule: &RuleMessage, option: &str) -> String {
    let mut text = format!("priority {}, table {}", priority(rule), table(rule));
    if let Some(mark) = mark(rule) {
        // Writing to a string cannot fail.
        let _ = write!(text, ", mark {mark}");
    }
    format!("{text} (`ip {option} rule` shows it whole)")
}
