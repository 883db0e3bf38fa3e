//! Control groups of the ring's own, so that what containers are limited by, and what they are
//! counted for, stays what the caller is.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{io, process, thread};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::shell;

const MOUNTED: &str = "/sys/fs/cgroup";
/// How long killed processes may take to leave their group.
const LEAVING: Duration = Duration::from_secs(5);

/// What containers cannot do without: their runtime sets a weight, a limit and a number.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

/// A folder in each hierarchy. Dropping this puts everything back as it was.
pub(crate) struct Cgroups {
    folders: Vec<PathBuf>,
    /// Controllers that the root of version 2 hands on only because of us.
    handed_on: Vec<&'static str>,
}

/// A hierarchy, as a line of `/proc/self/cgroup` tells of it (cgroups(7)).
struct Hierarchy {
    /// Controllers of version 1, or `name=…`; nothing for version 2.
    options: String,
    /// The group that we are in.
    group: String,
}

impl Hierarchy {
    fn all() -> Result<Vec<Self>> {
        let text = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        Ok(text.lines().filter_map(Self::parse).collect())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ':').skip(1).map(str::to_owned);
        Some(Self { options: parts.next()?, group: parts.next()? })
    }

    /// What its folder is called in [`MOUNTED`], where there is more than one.
    fn name(&self) -> &str {
        match self.options.strip_prefix("name=") {
            Some(name) => name,
            None if self.options.is_empty() => "unified",
            None => &self.options,
        }
    }
}

impl Cgroups {
    /// Makes the folders: below our own group, or, where all is version 2, below the root, since a
    /// group with processes in it cannot hand its controllers on.
    pub(crate) fn make() -> Result<Self> {
        let hierarchies = Hierarchy::all()?;
        let name = format!("weir-runtime-{}", process::id());
        let mut made = Self { folders: Vec::new(), handed_on: Vec::new() };
        if hierarchies.len() == 1 {
            made.hand_on()?;
        }
        for hierarchy in &hierarchies {
            let folder = if hierarchies.len() == 1 {
                Path::new(MOUNTED).join(&name)
            } else {
                let group = hierarchy.group.trim_start_matches('/');
                Path::new(MOUNTED).join(hierarchy.name()).join(group).join(&name)
            };
            let Some(parent) = folder.parent().filter(|parent| parent.exists()) else {
                // Known to the kernel and mounted nowhere: containers have no use for it either.
                continue;
            };
            fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
            made.folders.push(folder.clone());
            // Nobody can be in a group of these that names no processor and no memory (cpuset(7)).
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if hierarchies.len() > 1 && folder.join(file).exists() {
                    fs::copy(parent.join(file), folder.join(file))
                        .with_context(|| format!("write {file} of {}", folder.display()))?;
                }
            }
        }
        ensure!(!made.folders.is_empty(), "no control groups are mounted below {MOUNTED}");
        Ok(made)
    }

    /// Has the root hand on what containers need, as systemd has it do already.
    fn hand_on(&mut self) -> Result<()> {
        let file = Path::new(MOUNTED).join("cgroup.subtree_control");
        let already =
            fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        for needed in NEEDED {
            if !already.split_whitespace().any(|controller| controller == needed) {
                fs::write(&file, format!("+{needed}")).with_context(|| {
                    format!(
                        "have {MOUNTED} hand on {needed}, which only the root of all groups can"
                    )
                })?;
                self.handed_on.push(needed);
            }
        }
        Ok(())
    }

    pub(crate) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in &self.folders {
            let started = Instant::now();
            while remove(folder).is_err() {
                if started.elapsed() > LEAVING {
                    shell::say(&format!("left behind: {}", folder.display()));
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
        for controller in &self.handed_on {
            let file = Path::new(MOUNTED).join("cgroup.subtree_control");
            if let Err(error) = fs::write(&file, format!("-{controller}")) {
                shell::say(&format!("{} hands on {controller} still: {error}", file.display()));
            }
        }
    }
}

/// Removes a group with all below it. Files in it are not to be removed, and go with it.
fn remove(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// Puts this process into `folders`, and has it and its children see these as the roots of all
/// groups. What is mounted on `/sys/fs/cgroup` shows them only after [`mount_groups`].
pub(crate) fn join(folders: &[PathBuf]) -> Result<()> {
    for folder in folders {
        let file = folder.join("cgroup.procs");
        // Whoever writes it is meant by 0.
        fs::write(&file, "0").with_context(|| format!("write {}", file.display()))?;
    }
    unshare(CloneFlags::CLONE_NEWCGROUP).context("make a namespace for control groups")
}

/// Mounts all hierarchies, as systemd does it.
pub(crate) fn mount_groups() -> Result<()> {
    let hierarchies = Hierarchy::all()?;
    let at = Path::new(MOUNTED);
    let none = MsFlags::empty();
    if hierarchies.len() == 1 {
        mount(Some("cgroup2"), at, Some("cgroup2"), none, None::<&str>).context("mount cgroup2")?;
        return delegate(at);
    }
    mount(Some("tmpfs"), at, Some("tmpfs"), none, Some("mode=0755")).context("mount a tmpfs")?;
    for hierarchy in hierarchies {
        let folder = at.join(hierarchy.name());
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let controllers = hierarchy.options.as_str();
        let (kind, data) = match controllers {
            "" => ("cgroup2", None),
            name if name.starts_with("name=") => ("cgroup", Some(format!("none,{name}"))),
            controllers => ("cgroup", Some(controllers.to_owned())),
        };
        mount(Some(kind), &folder, Some(kind), none, data.as_deref())
            .with_context(|| format!("mount {}", folder.display()))?;
    }
    Ok(())
}

/// Hands all controllers on to the groups below, which version 2 allows only while no process is in
/// the one above them.
fn delegate(root: &Path) -> Result<()> {
    let own = root.join("own");
    fs::create_dir(&own).with_context(|| format!("create {}", own.display()))?;
    fs::write(own.join("cgroup.procs"), "0").context("move to a group of our own")?;
    let controllers =
        fs::read_to_string(root.join("cgroup.controllers")).context("read the controllers")?;
    let wanted: Vec<_> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    fs::write(root.join("cgroup.subtree_control"), wanted.join(" "))
        .context("hand the controllers on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_is_mounted_under_the_name_that_it_has_everywhere() {
        let name = |line: &str| {
            let hierarchy = Hierarchy::parse(line).expect("it is one");
            (hierarchy.name().to_owned(), hierarchy.group)
        };
        let of = |name: &str, group: &str| (name.to_owned(), group.to_owned());
        assert_eq!(name("4:memory:/a:b/c"), of("memory", "/a:b/c"));
        assert_eq!(name("3:cpu,cpuacct:/"), of("cpu,cpuacct", "/"));
        assert_eq!(name("9:name=systemd:/x"), of("systemd", "/x"));
        assert_eq!(name("0::/user.slice"), of("unified", "/user.slice"));
    }
}
