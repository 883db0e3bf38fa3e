//! Permanent neighbours.

use super::address::{host, mac};
use super::dranet::Dialect;
use super::reader::Spot;
use crate::model::{Neighbor, Problems};

pub(super) const FIELDS: [&str; 2] = ["destination", "hardwareAddr"];
pub(super) const MOST_NEIGHBORS: usize = 256;

pub(super) fn list(
    spot: &Spot<'_>,
    dialect: Dialect,
    problems: &mut Problems,
) -> Option<Vec<Neighbor>> {
    let items = spot.list_up_to(MOST_NEIGHBORS, "neighbors", problems)?;
    let (said, mut neighbors) = (items.len(), Vec::<Neighbor>::with_capacity(items.len()));
    for item in items {
        let Some(neighbor) = read(&item, dialect, problems) else {
            continue;
        };
        if neighbors.iter().any(|other| other.destination == neighbor.destination) {
            let message = format!("{} is in the list already", neighbor.destination);
            problems.add(format!("{}.destination", item.path), message);
        }
        neighbors.push(neighbor);
    }
    (neighbors.len() == said).then_some(neighbors)
}

fn read(spot: &Spot<'_>, dialect: Dialect, problems: &mut Problems) -> Option<Neighbor> {
    let neighbor = spot.object(&FIELDS, problems)?;
    let destination =
        neighbor.required("destination", problems).and_then(|spot| host(&spot, problems));
    let mac =
        neighbor.required("hardwareAddr", problems).and_then(|spot| mac(&spot, dialect, problems));
    Some(Neighbor { destination: destination?, mac: mac? })
}
