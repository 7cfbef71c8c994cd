//! Collections of bounded size, and small tools that know nothing of DNS.

pub(crate) mod arena;
pub(crate) mod boxed;
pub(crate) mod budget;
pub(crate) mod conn_table;
pub(crate) mod output;
pub(crate) mod random;
pub(crate) mod sort;
pub(crate) mod timeouts;
