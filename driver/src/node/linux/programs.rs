//! Takes programs of others off an interface, as the claim asks for it.
//!
//! XDP, TCX, and filters of `clsact` and `ingress`; not netkit, whose programs are at the other end of
//! a pair. Whoever attached a program may attach it again: we do it once and do not fight.

use std::io;

use super::places::Places;
use crate::datapath::{Datapath, OwnPrograms};
use crate::model::{At, AttachmentId, IfIndex, OtherPrograms, Place};
use crate::node::StepError;
use crate::plan::Was;
use crate::sys::bpf;
use crate::sys::netlink::{Netlink, Side};
use crate::telemetry::chain;

/// Longest name of a program in the kernel (`BPF_OBJ_NAME_LEN` less the terminating NUL).
const NAME_LEN: usize = 15;

pub(super) fn detach(
    places: &mut Places,
    datapath: &Datapath,
    at: &At,
    programs: &OtherPrograms,
    ours: &AttachmentId,
) -> Result<Was, StepError> {
    let ours = datapath.own_programs(ours)?;
    let index = places.index(at)?.1;
    let open = places.at(&at.place)?;
    let search = Search { wished: programs, ours: &ours, index };
    // By bpf(2) an interface is named by its index in the caller's namespace.
    let tcx = match &at.place {
        Place::Host => search.tcx()?,
        Place::Pod(_) => open.netns.run(|_| search.tcx())??,
    };
    let rest = search.xdp(&open.netlink)? + search.filters(&open.netlink)?;
    Ok(if tcx + rest == 0 { Was::Same } else { Was::Otherwise })
}

/// What is looked for. Each part answers how many it has detached.
struct Search<'a> {
    wished: &'a OtherPrograms,
    ours: &'a OwnPrograms,
    index: IfIndex,
}

impl Search<'_> {
    fn tcx(&self) -> Result<usize, StepError> {
        let mut count = 0;
        for place in [bpf::Place::TcxIngress, bpf::Place::TcxEgress] {
            let failed = |error: io::Error| self.error("TCX", &error);
            let chain = match bpf::chain(self.index, place) {
                Ok(chain) => chain,
                // Nothing was ever attached there, or this kernel has no TCX.
                Err(error) if is_one_of(&error, &[nix::libc::ENOENT, nix::libc::EINVAL]) => {
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            for linked in chain {
                if !self.is_meant(linked.program, linked.link)? {
                    continue;
                }
                match linked.link {
                    Some(link) => bpf::sever(link).map_err(failed)?,
                    None => {
                        bpf::detach_program(self.index, place, linked.program).map_err(failed)?;
                    }
                }
                count += 1;
            }
        }
        Ok(count)
    }

    fn xdp(&self, netlink: &Netlink) -> Result<usize, StepError> {
        let mut count = 0;
        for (mode, program) in netlink.xdp(self.index)? {
            if !self.is_meant(program, None)? {
                continue;
            }
            let failed = |error: io::Error| self.error("XDP", &error);
            match bpf::xdp_links(self.index, program).map_err(failed)?.as_slice() {
                [] => netlink.detach_xdp(self.index, mode)?,
                [link] => bpf::sever(*link).map_err(failed)?,
                several => {
                    let message = format!(
                        "XDP program {program} has {} links to interfaces of the number {}, and \
                         nobody can tell which of them is this one",
                        several.len(),
                        self.index
                    );
                    return Err(StepError { message });
                }
            }
            count += 1;
        }
        Ok(count)
    }

    fn filters(&self, netlink: &Netlink) -> Result<usize, StepError> {
        let mut count = 0;
        for side in [Side::Ingress, Side::Egress] {
            for filter in netlink.bpf_filters(self.index, side)? {
                if self.is_meant(filter.program, None)? {
                    netlink.remove_bpf_filter(&filter)?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    fn is_meant(&self, program: u32, link: Option<u32>) -> Result<bool, StepError> {
        let is_ours = link.is_some_and(|link| self.ours.links.contains(&link))
            || self.ours.programs.contains(&program);
        if is_ours {
            return Ok(false);
        }
        let OtherPrograms::Named(names) = self.wished else { return Ok(true) };
        let name = match bpf::program_name(program) {
            Ok(name) => name,
            // It has ended by itself.
            Err(error) if is_one_of(&error, &[nix::libc::ENOENT]) => return Ok(false),
            Err(error) => return Err(self.error("other", &error)),
        };
        Ok(names.iter().any(|wished| is_name(wished, &name)))
    }

    fn error(&self, noun: &str, error: &io::Error) -> StepError {
        let cause = chain(error);
        StepError { message: format!("{noun} programs of interface {}: {cause}", self.index) }
    }
}

/// The kernel keeps the first bytes of a longer name.
fn is_name(wished: &str, name: &str) -> bool {
    let kept = wished.as_bytes().get(..NAME_LEN).unwrap_or(wished.as_bytes());
    !name.is_empty() && kept == name.as_bytes()
}

fn is_one_of(error: &io::Error, numbers: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|errno| numbers.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_as_much_as_the_kernel_keeps_of_it() {
        assert!(is_name("cil_from_netdev", "cil_from_netdev"));
        assert!(is_name("cil_from_netdev_and_more", "cil_from_netdev"));
        assert!(!is_name("cil_from", "cil_from_netdev"));
        assert!(!is_name("", ""));
    }
}
