//! The view of a route that import, export and kernel policy work on.
//!
//! Owns: [`RouteView`] and the trait [`Policy`]; what a policy is made of is the caller's. Never: evaluates one.

use std::borrow::Cow;

use crate::prefix::IpPrefix;
use crate::rib::path::SourceClass;
use crate::wire::{Attributes, NextHop};

/// A device that policy sends a route through, in the place of the route's own way (KRT-30).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Device {
    /// Its name.
    pub name: &'static str,
    /// While the device is not there the route waits for it; otherwise it then goes its own way.
    pub required: bool,
}

/// A route as policy sees it and changes it (FILT-1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteView<'a> {
    /// The prefix.
    pub prefix: IpPrefix,
    /// Its origin class.
    pub class: SourceClass,
    /// Name of the outgoing interface; empty if there is none, or several.
    pub interface: &'a str,
    /// Whether the session is within one AS; `None` on the way to the kernel.
    pub internal: Option<bool>,
    /// Kernel metric (`krt_metric`); defined for foreign routes, and where policy sets it.
    pub metric: Option<u32>,
    /// Preference; read after import only.
    pub preference: u16,
    /// Attributes but the next hop; borrowed until policy changes them.
    pub attributes: Cow<'a, Attributes>,
    /// The BGP next hop attribute; on export the one that will be sent. Not the resolved gateway.
    pub next_hop: Option<NextHop>,
    /// The device to send it through; set by policy on the way to the kernel only.
    pub device: Option<Device>,
}

/// A policy program.
pub trait Policy {
    /// Runs it on a route; `false`: the route is rejected.
    fn accepts(&self, route: &mut RouteView<'_>) -> bool;

    /// Whether its answer may depend on the prefix. Where it does not, it is asked once for all prefixes of an UPDATE.
    fn reads_prefix(&self) -> bool {
        true
    }

    /// Whether its answer may depend on the interface.
    fn reads_interface(&self) -> bool {
        true
    }
}

/// Accepts everything as it is.
#[derive(Clone, Copy, Debug)]
pub struct AcceptAll;

impl Policy for AcceptAll {
    fn accepts(&self, _: &mut RouteView<'_>) -> bool {
        true
    }

    fn reads_prefix(&self) -> bool {
        false
    }

    fn reads_interface(&self) -> bool {
        false
    }
}
