//! Reading the fields of one document, leniently and with a [`Problem`] for each that cannot be used.
//!
//! Owns: what counts as text, number, address, AS number (DS-13), duration or list in a document that is already
//! split into values. A bare boolean or number where text belongs is its text, as in Calico's own tools. Never: knows
//! which fields a resource has. A refused field never hides the others: [`Read`] tells "absent" from "refused", so that
//! the caller can let a refused field keep its last good value.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use bgp_proto::{Asn, IpPrefix};
use serde_json::{Map, Value};

use super::text;
use crate::model::{Code, Problem, SecretKeyRef};

/// A field's value: `Ok(None)` where it is absent or null.
pub type Read<T> = Result<Option<T>, Unusable>;

/// A field that is there and cannot be used; its problem is noted already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unusable;

/// The value, or for a refused field the one it had before.
pub fn or_last<T>(read: Read<T>, last: Option<T>) -> Option<T> {
    read.unwrap_or(last)
}

/// Problems of one resource, in the order found.
#[derive(Debug)]
pub struct FieldLog {
    resource: String,
    problems: RefCell<Vec<Problem>>,
}

impl FieldLog {
    /// An empty log for `resource`.
    pub fn new(resource: String) -> Self {
        FieldLog { resource, problems: RefCell::default() }
    }

    /// Notes that `field` is not used.
    pub fn refuse(&self, field: impl Into<String>, why: impl Into<String>) -> Unusable {
        self.note(field.into(), why.into(), Code::FieldRefused);
        Unusable
    }

    /// Notes that `field` is read as a default.
    pub fn warn(&self, field: impl Into<String>, why: impl Into<String>) {
        self.note(field.into(), why.into(), Code::FieldDefaulted);
    }

    fn note(&self, field: String, why: String, code: Code) {
        let resource = self.resource.clone();
        self.problems.borrow_mut().push(Problem { resource, field, why, code });
    }

    /// What was noted.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// An object of the document, or nothing where it is absent.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    map: Option<&'a Map<String, Value>>,
    /// Something else is in its place: then each of its fields is refused too, and not absent.
    refused: bool,
    /// What is in it, or in its place, must not be shown.
    secret: bool,
    path: String,
    log: &'a FieldLog,
}

/// What was found in place of the wanted thing, short enough for a log line; values of strings are quoted.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => text::quoted(s),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// As [`shown`], without the value.
fn veiled(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A scalar's text, as Calico's tools turn a bare scalar into a string.
pub fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(text::number(n)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

impl<'a> Fields<'a> {
    /// The fields of the document itself.
    pub fn root(value: &'a Value, log: &'a FieldLog) -> Self {
        Fields { map: value.as_object(), refused: false, secret: false, path: String::new(), log }
    }

    /// The same fields; no message shows what they hold.
    pub fn veil(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The path of field `name`.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Whether the object itself is in the document.
    pub fn exists(&self) -> bool {
        self.map.is_some()
    }

    /// Whether something that is no object is in its place, or in that of an object around it.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// The log of the resource.
    pub fn log(&self) -> &'a FieldLog {
        self.log
    }

    /// The value of field `name`; null counts as absent.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map?.get(name).filter(|value| !value.is_null())
    }

    fn value(&self, name: &str) -> Read<&'a Value> {
        if self.refused { Err(Unusable) } else { Ok(self.get(name)) }
    }

    /// Refuses field `name`.
    pub fn refuse(&self, name: &str, why: impl Into<String>) -> Unusable {
        self.log.refuse(self.path(name), why)
    }

    fn wanted(&self, name: &str, value: &Value, what: &str) -> Unusable {
        let found = if self.secret { veiled(value).to_owned() } else { shown(value) };
        self.refuse(name, format!("{what} is wanted here, not {found}"))
    }

    /// The object in field `name`: without fields where it is absent, with refused ones where it is no object.
    pub fn object(&self, name: &str) -> Fields<'a> {
        let found = self.value(name).and_then(|value| match value {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wanted(name, other, "an object")),
        });
        Fields {
            map: found.ok().flatten(),
            refused: found.is_err(),
            secret: self.secret,
            path: self.path(name),
            log: self.log,
        }
    }

    /// Text; empty counts as absent.
    pub fn text(&self, name: &str) -> Read<String> {
        match self.value(name)? {
            None => Ok(None),
            Some(value) => match scalar_text(value) {
                Some(text) => Ok(Some(text).filter(|text| !text.is_empty())),
                None => Err(self.wanted(name, value, "text")),
            },
        }
    }

    /// Text that is parsed; empty counts as absent.
    pub fn parsed<T>(&self, name: &str) -> Read<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        self.text_as(name, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// Text that `read` understands; empty counts as absent.
    pub fn text_as<T>(&self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Read<T> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        read(&text).map(Some).map_err(|why| self.refuse(name, format!("{} is {why}", text::quoted(&text))))
    }

    /// One of a set of names; an unknown one is read as absent, with a warning (D9).
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Read<T> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.log.warn(
                self.path(name),
                format!(
                    "{} is not known (known are {}); read as unset",
                    text::quoted(&text),
                    known.join(", ")
                ),
            );
        }
        Ok(found)
    }

    /// A boolean; the v1 resources and hand-written files also have it as text.
    pub fn bool(&self, name: &str) -> Read<bool> {
        match self.value(name)? {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(other) => Err(self.wanted(name, other, "true or false")),
        }
    }

    /// A whole number within `range`.
    pub fn number<T: TryFrom<u64> + Into<u64> + Copy>(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<T>,
    ) -> Read<T> {
        let Some(value) = self.value(name)? else { return Ok(None) };
        let (low, high): (u64, u64) = ((*range.start()).into(), (*range.end()).into());
        whole(value)
            .filter(|n| (low..=high).contains(n))
            .and_then(|n| T::try_from(n).ok())
            .map(Some)
            .ok_or_else(|| self.wanted(name, value, &format!("a whole number from {low} to {high}")))
    }

    /// An AS number that a session can use: a number, a decimal string or `<high>.<low>` (DS-13); not 0 (RFC 7607)
    /// and not 4294967295 (RFC 7300).
    pub fn asn(&self, name: &str) -> Read<Asn> {
        match self.value(name)? {
            None => Ok(None),
            Some(value) => self.asn_value(name, value),
        }
    }

    fn asn_value(&self, name: &str, value: &Value) -> Read<Asn> {
        let asn = match value {
            Value::String(text) if text.is_empty() => return Ok(None),
            Value::String(text) => text.parse().ok(),
            // A bare 1.10 has lost its last digit when it arrives here, so only quotes can carry the dotted form.
            other => whole(other).and_then(|n| u32::try_from(n).ok()).map(Asn),
        };
        match asn {
            Some(Asn(0 | u32::MAX)) | None => Err(self.wanted(
                name,
                value,
                "an AS number from 1 to 4294967294, or \"<high>.<low>\" in quotes,",
            )),
            asn => Ok(asn),
        }
    }

    /// A list of AS numbers.
    pub fn asns(&self, name: &str) -> Read<Vec<Asn>> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        let mut asns = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            match self.asn_value(&format!("{name}[{index}]"), value)? {
                Some(asn) => asns.push(asn),
                None => return Err(self.wanted(&format!("{name}[{index}]"), value, "an AS number")),
            }
        }
        Ok(Some(asns))
    }

    /// A Go duration, rounded to whole seconds, half away from zero (PEER-61).
    pub fn seconds(&self, name: &str) -> Read<u32> {
        self.text_as(name, |text| {
            let nanos = text::go_duration(text).ok_or("not a duration such as 90s or 1m30s")?;
            let seconds = (nanos + 500_000_000).div_euclid(1_000_000_000);
            u32::try_from(seconds).map_err(|_| "out of range (0 to 4294967295 seconds)".to_owned())
        })
    }

    /// An IP address.
    pub fn ip(&self, name: &str) -> Read<IpAddr> {
        self.text_as(name, |text| text.parse().map_err(|_| "not an IP address".to_owned()))
    }

    /// A list.
    pub fn list(&self, name: &str) -> Read<&'a [Value]> {
        match self.value(name)? {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(self.wanted(name, other, "a list")),
        }
    }

    /// A list of objects, each with its index; what is no object is refused and left out.
    pub fn objects(&self, name: &str) -> Read<Vec<(usize, Fields<'a>)>> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        let mut objects = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            match value.as_object() {
                Some(map) => {
                    let path = format!("{}[{index}]", self.path(name));
                    objects.push((index, Fields { map: Some(map), path, ..self.clone() }));
                }
                None => {
                    self.wanted(&format!("{name}[{index}]"), value, "an object");
                }
            }
        }
        Ok(Some(objects))
    }

    /// A list of texts; empty ones are left out, what is no text is refused and left out.
    pub fn texts(&self, name: &str) -> Read<Vec<String>> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        let mut texts = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            match scalar_text(value) {
                Some(text) if text.is_empty() => {}
                Some(text) => texts.push(text),
                None => {
                    self.wanted(&format!("{name}[{index}]"), value, "text");
                }
            }
        }
        Ok(Some(texts))
    }

    /// A list of texts that are parsed; one that cannot be is refused and left out.
    pub fn parsed_list<T: FromStr>(&self, name: &str, what: &str) -> Read<Vec<T>> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        let mut found = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            match scalar_text(value).as_deref().map(str::parse) {
                Some(Ok(value)) => found.push(value),
                _ => {
                    self.wanted(&format!("{name}[{index}]"), value, what);
                }
            }
        }
        Ok(Some(found))
    }

    /// A list of `{cidr}`: empty ones are ignored, one that cannot be read refuses the list (SVC-1, SVC-12).
    pub fn cidr_objects(&self, name: &str) -> Read<Vec<IpPrefix>> {
        let Some(entries) = self.objects(name)? else { return Ok(None) };
        let mut cidrs = Vec::with_capacity(entries.len());
        for (_, entry) in entries {
            cidrs.extend(entry.parsed::<IpPrefix>("cidr")?);
        }
        Ok(Some(cidrs))
    }

    /// A map of texts; a null is empty text, what is no text is refused and left out.
    pub fn text_map(&self, name: &str) -> BTreeMap<String, String> {
        let object = self.object(name);
        let mut texts = BTreeMap::new();
        for (key, value) in object.map.into_iter().flatten() {
            match scalar_text(value) {
                Some(text) => {
                    texts.insert(key.clone(), text);
                }
                None if value.is_null() => {
                    texts.insert(key.clone(), String::new());
                }
                None => {
                    object.wanted(key, value, "text");
                }
            }
        }
        texts
    }

    /// `{secretKeyRef: {name, key}}` (PEER-80). A reference that lacks a part is kept, and of one that cannot be read
    /// the last good one or an empty one, so that the password counts as missing and not as unwanted. A password that
    /// stands in the place of the reference is not shown.
    pub fn secret_key_ref(&self, name: &str, last: Option<SecretKeyRef>) -> Option<SecretKeyRef> {
        let inner = self.clone().veil().object(name).object("secretKeyRef");
        if self.refused {
            return last;
        }
        if inner.refused {
            return Some(last.unwrap_or_default());
        }
        if !inner.exists() {
            return None;
        }
        let part = |name: &str| match inner.text(name) {
            Ok(Some(text)) => text,
            Ok(None) => {
                inner.refuse(name, "is missing");
                String::new()
            }
            Err(Unusable) => String::new(),
        };
        Some(SecretKeyRef { name: part("name"), key: part("key") })
    }
}

/// Whether a host can have the address and be spoken to there by TCP.
pub fn is_host(addr: IpAddr) -> bool {
    let broadcast = matches!(addr, IpAddr::V4(addr) if addr.is_broadcast());
    !(addr.is_unspecified() || addr.is_multicast() || broadcast)
}

/// A JSON number without a fraction.
fn whole(value: &Value) -> Option<u64> {
    let number = value.as_number()?;
    number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        // Exact up to 2^53; YAML's 1e3 arrives as a float.
        (float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&float)).then_some(float as u64)
    })
}
