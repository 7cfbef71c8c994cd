//! The [`Config`] that options come to, and what does not go together.

use std::mem;
use std::net::IpAddr;
use std::path::Path;

use super::address::{overlap, reaches};
use super::choice::{Private, QueryLog, Special};
use super::options::{LISTEN_DEFAULT, LISTENERS_MAX, Options, QUERY_TIMEOUT, UPSTREAM_DEFAULT};
use super::sizes;
use super::suggest::shown;
use super::{Config, Host, UsageError};
use crate::forwarder::{Hedge, Limits, Order, Policy, PrivateAnswers};
use crate::forwarder::{QueryLogForm, QueryLogStyle, SpecialNames};
use crate::host::log_format::LogFormat;
use crate::host::network::source::Source;
use crate::tls::Files;

impl Options {
    fn source_warnings(&self) -> Vec<String> {
        let Source { v4, v6, interface } = &self.upstream_source;
        let mut warnings = Vec::new();
        if let Some(interface) = interface
            && (self.host.interface_index)(interface).is_none()
        {
            warnings.push(format!(
                "--upstream-source {interface}: there is no such interface now; upstreams are connected to once there is"
            ));
        }
        let has = |is_v4: bool| self.upstreams.iter().any(|it| it.address.is_ipv4() == is_v4);
        for (given, other, is_v4, name) in [
            (v4.map(IpAddr::from), v6.is_some(), false, "IPv6"),
            (v6.map(IpAddr::from), v4.is_some(), true, "IPv4"),
        ] {
            if let Some(given) = given.filter(|_| !other && interface.is_none() && has(is_v4)) {
                warnings.push(format!(
                    "--upstream-source {given}: upstreams with {name} are connected to from any address; give one for \
                     {name}, or the interface, too"
                ));
            }
        }
        warnings
    }

    fn private_answers(&mut self) -> PrivateAnswers {
        let loopback = match self.private_answers {
            Private::Pass => return PrivateAnswers::Pass,
            Private::Strip => false,
            Private::StripLoopback => true,
        };
        // What is asked of an upstream as special has addresses of this network.
        let mut except = mem::take(&mut self.private_zones);
        except.append(&mut self.forward_zones);
        PrivateAnswers::Strip {
            loopback,
            except,
            except_special: self.special_names == Special::Forward,
        }
    }

    /// Whether roots were given, and nobody whose certificate leads to one.
    fn needless_roots(&self) -> Option<String> {
        let file = self.ca_files.first()?;
        let is_alone = self.upstreams.is_empty() && self.builtin_roots != Some(true);
        is_alone.then(|| {
            format!(
                "--ca-file {}: without --upstream {} is asked, whose certificate leads to none of these roots; give \
                 the --upstream that they are for",
                shown(&file.to_string_lossy()),
                UPSTREAM_DEFAULT.word
            )
        })
    }

    /// Everything that the program is told, or what does not go together.
    pub(super) fn into_config(mut self) -> Result<Config, UsageError> {
        let inherited = self.host.inherited;
        if inherited.len() > LISTENERS_MAX {
            return Err(UsageError::new(format!(
                "LISTEN_FDS: {} addresses were handed over; give at most {LISTENERS_MAX}, or 0.0.0.0 or [::] for \
                 all addresses",
                inherited.len()
            )));
        }
        let needless_roots = self.needless_roots();
        if self.listen.is_empty() && inherited.is_empty() {
            self.listen.push(LISTEN_DEFAULT);
        }
        if self.upstreams.is_empty() {
            self.upstreams.extend(UPSTREAM_DEFAULT.upstreams());
        }
        self.check_upstreams()?;
        self.check_metrics()?;
        let limits = self.limits()?;
        let files = self.files()?;
        let mut listeners = inherited.iter().chain(&self.listen);
        let is_public = !listeners.all(|listener| listener.ip().is_loopback());
        let (access, rate, mut warnings) = self.served.resolve(self.size, is_public);
        let special_names = match self.special_names {
            Special::Forward => SpecialNames::Forward,
            Special::Local => SpecialNames::Local { forwarded: self.forward_zones.clone() },
        };
        warnings.extend(self.needless_private_zone(&special_names));
        warnings.extend(needless_roots);
        warnings.extend(self.unreached_wait_limit());
        warnings.extend(self.source_warnings());
        let log_format = self.log_format();
        let private_answers = self.private_answers();
        // With one operator asked before the others, these are not to see a part of the names.
        let hedge = if self.order == Order::Ordered { Hedge::Same } else { Hedge::Any };
        Ok(Config {
            file: self.file,
            flags_of_file: 0,
            flags: "".into(),
            listen: self.listen,
            inherited,
            reuse_port: self.reuse_port,
            freebind: self.freebind,
            metrics: self.metrics,
            drain: self.drain,
            upstreams: self.upstreams,
            upstream_source: self.upstream_source,
            files,
            key_exchange: self.key_exchange,
            user: self.user,
            sandbox: self.sandbox,
            log_level: self.log_level,
            log_format,
            policy: Policy {
                order: self.order,
                hedge: self.hedge.unwrap_or(hedge),
                retry_servfail: self.retry_servfail,
                ecs: self.ecs,
                access,
                rate,
                special_names,
                private_answers,
            },
            warnings,
            size: self.size,
            limits,
            sockets: self.size.sockets(),
        })
    }

    fn log_format(&self) -> LogFormat {
        let suitable =
            if self.host.is_stderr_journal { LogFormat::Journald } else { LogFormat::Plain };
        self.log_format.unwrap_or(suitable)
    }

    fn files(&mut self) -> Result<Files, UsageError> {
        let roots = mem::take(&mut self.ca_files);
        let builtin_roots = self.builtin_roots.unwrap_or(roots.is_empty());
        if roots.is_empty() && !builtin_roots {
            return Err(UsageError::new(
                "--builtin-roots off: leaves no root to trust; give --ca-file FILE as well".into(),
            ));
        }
        let client = match (self.client_cert.take(), self.client_key.take()) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(file), None) => return Err(alone("--client-cert", &file, "--client-key")),
            (None, Some(file)) => return Err(alone("--client-key", &file, "--client-cert")),
        };
        Ok(Files { roots, builtin_roots, client, again: None })
    }

    fn needless_private_zone(&self, special_names: &SpecialNames) -> Option<String> {
        if self.private_answers == Private::Pass && !self.private_zones.is_empty() {
            return Some("--private-zone: changes nothing without --private-answers strip".into());
        }
        let zone = self.private_zones.iter().find_map(|zone| special_names.all_of(zone))?;
        Some(format!(
            "--private-zone {zone}: changes nothing, as its names are special and answered here; write \
             --forward-zone {zone} in its place"
        ))
    }

    fn unreached_wait_limit(&self) -> Option<String> {
        // A quarter of all places is not for datagrams.
        let queries = self.size.of(sizes::QUERIES_MAX) * 3 / 4;
        // Whoever wrote off knows that there is no limit.
        let limit =
            self.late_datagrams_max.filter(|limit| (queries..usize::MAX).contains(limit))?;
        Some(format!(
            "--wait-limit {limit}: is never reached, as --size {} has places for {queries} queries over UDP; write \
             less, such as {}, or off",
            self.size.word(),
            self.size.of(sizes::LATE_DATAGRAMS_MAX)
        ))
    }

    fn check_upstreams(&self) -> Result<(), UsageError> {
        let most = self.size.of(sizes::UPSTREAMS_MAX);
        if let Some(upstream) = self.upstreams.get(most) {
            return Err(UsageError::new(format!(
                "--upstream {upstream}: is one upstream too many for --size {}; give at most {most}, or \
                 another size",
                self.size.word()
            )));
        }
        // A query that came back to its sender would go round until its deadline.
        for upstream in &self.upstreams {
            let own = self.listen.iter().chain(self.host.inherited);
            let mut own = own.filter(|own| reaches(upstream.address, **own));
            if let Some(listener) = own.next() {
                return Err(UsageError::new(format!(
                    "--upstream {upstream}: is this program's own listener (--listen {listener}); \
                     give the address of another server"
                )));
            }
        }
        Ok(())
    }

    fn check_metrics(&self) -> Result<(), UsageError> {
        let Some(metrics) = self.metrics.filter(|metrics| metrics.port() != 0) else {
            return Ok(());
        };
        match self.listen.iter().find(|own| **own == metrics || overlap(**own, metrics)) {
            Some(listener) => Err(UsageError::new(format!(
                "--metrics {metrics}: is served by --listen {listener} already; give another port"
            ))),
            None => Ok(()),
        }
    }

    fn limits(&self) -> Result<Limits, UsageError> {
        let size = self.size;
        let clients_max = self.clients_max.unwrap_or(size.of(sizes::CLIENTS_MAX));
        let per_address = self.clients_per_address_max;
        if let Some(per_address) = per_address.filter(|per_address| *per_address > clients_max) {
            return Err(UsageError::new(format!(
                "--tcp-clients-per-address-max {per_address}: is more than all may have; raise \
                 --tcp-clients-max, which is {clients_max}, as well"
            )));
        }
        Ok(Limits {
            query_timeout: QUERY_TIMEOUT,
            upstream_idle_timeout: self.upstream_idle_timeout,
            client_idle_timeout: self.client_idle_timeout,
            queries_max: size.of(sizes::QUERIES_MAX),
            query_bytes_max: size.of(sizes::QUERY_BYTES_MAX),
            clients_max,
            clients_per_address_max: per_address.unwrap_or(size.of(sizes::CLIENTS_PER_ADDRESS_MAX)),
            client_queries_max: size.of(sizes::CLIENT_QUERIES_MAX),
            client_output_max: size.of(sizes::CLIENT_OUTPUT_MAX),
            client_bytes_max: size.of(sizes::CLIENT_BYTES_MAX),
            udp_size_max: self.udp_size_max,
            datagram_bytes_max: size.of(sizes::DATAGRAM_BYTES_MAX),
            datagrams_max: size.of(sizes::DATAGRAMS_MAX),
            late_datagrams_max: self
                .late_datagrams_max
                .unwrap_or(size.of(sizes::LATE_DATAGRAMS_MAX)),
            upstream_conns_max: size.upstream_conns_max(match self.file {
                // When it is read again there may be more.
                Some(_) => size.of(sizes::UPSTREAMS_MAX),
                None => self.upstreams.len(),
            }),
            upstream_output_max: size.of(sizes::UPSTREAM_OUTPUT_MAX),
            upstream_bytes_max: size.of(sizes::UPSTREAM_BYTES_MAX),
            output_kept: size.of(sizes::OUTPUT_KEPT),
            query_log_max: size.of(sizes::QUERY_LOG_MAX),
            query_log: self.query_log_style(),
        })
    }

    fn query_log_style(&self) -> Option<QueryLogStyle> {
        let Host { is_stderr_terminal, takes_colour, .. } = self.host;
        let form = match self.query_log {
            QueryLog::Off => return None,
            QueryLog::Auto if !is_stderr_terminal => return None,
            QueryLog::Json => QueryLogForm::Json,
            QueryLog::Auto | QueryLog::On
                if is_stderr_terminal && self.log_format() == LogFormat::Plain =>
            {
                QueryLogForm::Columns { coloured: takes_colour }
            }
            QueryLog::Auto | QueryLog::On => QueryLogForm::Words,
        };
        Some(QueryLogStyle { form, client: self.query_log_client })
    }
}

/// A flag that means nothing without another.
fn alone(flag: &str, file: &Path, other: &str) -> UsageError {
    UsageError::new(format!(
        "{flag} {}: needs {other} FILE as well",
        shown(&file.to_string_lossy())
    ))
}
