//! calico-bgpd: one daemon in the place of bird, bird6 and confd on the nodes of a Calico cluster.
//!
//! Data flows one way: datastore → snapshot → desired state → plan → sessions, table, kernel. Only observations flow
//! back. `desired`, `policy`, `speaker` and `fib::plan` are cores: no clocks, no I/O, no tokio.

pub mod datastore;
pub mod decode;
pub mod desired;
pub mod fib;
pub mod policy;
pub mod speaker;
