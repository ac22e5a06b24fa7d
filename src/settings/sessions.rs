//! Settings that hold for every session of this node, which Calico's resources have no fields for.
//!
//! Owns: their flags, variables, forms and bounds. Never: which sessions there are; what a resource says of a session goes before these.
//! Rules: T1 (RFC 9687), T18, RFC 8538, W34 (RFC 9774), W49.

use bgp_proto::session::{MaxPrefix, NextOpen};
use bgp_proto::wire::attr::AttributeCodes;
use clap::Args;

use super::{SettingError, Typed};

/// Limits and exceptions of all sessions.
#[derive(Args, Clone, Debug, Default)]
pub struct SessionFlags {
    /// End a session whose peer takes nothing for so many seconds, or off.
    #[arg(long, value_name = "SECONDS")]
    pub send_hold_time: Option<String>,
    /// Prefixes that a peer may send in each family, and what happens beyond: LIMIT or LIMIT:warn; LIMIT:close.
    #[arg(long, value_name = "LIMIT")]
    pub max_prefixes: Option<String>,
    /// Offer graceful restart also where a NOTIFICATION ends the session (RFC 8538).
    #[arg(long)]
    pub notification_gr: bool,
    /// Take paths with an AS_SET, as BIRD does, instead of withdrawing them (RFC 9774).
    #[arg(long)]
    pub accept_as_set: bool,
    /// Attributes, by code, that are taken from the routes of external peers, or none.
    #[arg(long, value_name = "CODES")]
    pub strip_attributes: Option<String>,
}

/// What every session has unless a resource says otherwise.
pub(super) fn resolve(flags: &SessionFlags, typed: &Typed<'_>) -> Result<NextOpen, SettingError> {
    let given = |flag, value: &Option<String>, variable| {
        typed
            .text((flag, value.as_deref()), &[variable])
            .map(|(name, value)| (name, value.trim().to_ascii_lowercase()))
    };
    let mut sessions = NextOpen {
        notification_gr: flags.notification_gr || typed.boolean(&["CALICO_BGPD_NOTIFICATION_GR"])?,
        accept_as_set: flags.accept_as_set || typed.boolean(&["CALICO_BGPD_ACCEPT_AS_SET"])?,
        ..NextOpen::default()
    };
    if let Some((name, value)) =
        given("--send-hold-time", &flags.send_hold_time, "CALICO_BGPD_SEND_HOLD_TIME")
    {
        sessions.send_hold = match value.as_str() {
            "off" => None,
            seconds => Some(positive(seconds).ok_or_else(|| {
                SettingError::new(
                    name,
                    format!("{value:?} is neither off nor a number of seconds (1 to 65535)"),
                )
            })?),
        };
    }
    if let Some((name, value)) = given("--max-prefixes", &flags.max_prefixes, "CALICO_BGPD_MAX_PREFIXES") {
        let rule = max_prefixes(&value).ok_or_else(|| {
            let forms = "LIMIT, LIMIT:warn, LIMIT:close and LIMIT:restart=SECONDS";
            SettingError::new(name, format!("{value:?} is none of {forms}, with numbers from 1"))
        })?;
        sessions.max_prefix = Some(rule);
    }
    if let Some((name, value)) =
        given("--strip-attributes", &flags.strip_attributes, "CALICO_BGPD_STRIP_ATTRIBUTES")
    {
        sessions.strip_external = codes(&value).ok_or_else(|| {
            SettingError::new(
                name,
                format!("{value:?} is neither none nor a list of attribute codes such as 22,23"),
            )
        })?;
    }
    Ok(sessions)
}

/// A number above zero that fits.
fn positive<N: std::str::FromStr + Default + PartialEq>(text: &str) -> Option<N> {
    text.trim().parse().ok().filter(|number| *number != N::default())
}

fn max_prefixes(text: &str) -> Option<MaxPrefix> {
    let (limit, action) = text.split_once(':').unwrap_or((text, "warn"));
    let (close, restart) = match action.trim() {
        "warn" => (false, None),
        "close" => (true, None),
        other => (true, Some(positive(other.strip_prefix("restart=")?)?)),
    };
    Some(MaxPrefix { limit: positive(limit)?, close, restart })
}

fn codes(text: &str) -> Option<AttributeCodes> {
    if text == "none" {
        return Some(AttributeCodes::NONE);
    }
    let codes: Option<Vec<u8>> = text.split(',').map(positive).collect();
    Some(AttributeCodes::of(&codes?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_prefixes_has_an_action() {
        let rule = |limit, close, restart| Some(MaxPrefix { limit, close, restart });
        for (text, expected) in [
            ("1000", rule(1000, false, None)),
            ("1000:warn", rule(1000, false, None)),
            ("1000:close", rule(1000, true, None)),
            ("1000:restart=300", rule(1000, true, Some(300))),
            ("0", None),
            ("1000:", None),
            ("1000:restart", None),
            ("1000:restart=0", None),
            ("1000:restart=70000", None),
            ("many", None),
        ] {
            assert_eq!(max_prefixes(text), expected, "{text}");
        }
    }

    #[test]
    fn attribute_codes_are_a_list_or_none() {
        assert_eq!(codes("none"), Some(AttributeCodes::NONE));
        assert_eq!(codes("23, 40"), Some(AttributeCodes::of(&[23, 40])));
        for text in ["", "23,", "0", "256", "aigp"] {
            assert_eq!(codes(text), None, "{text:?}");
        }
    }
}
