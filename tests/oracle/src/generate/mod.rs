//! Makes scenarios up: what is configured, and what comes in.
//!
//! Each is made while it is played to our core, so that a server can answer
//! what was sent to it. What comes of it is a list of plain frames and
//! commands, the same for whoever plays it again.

use ipvs_conformance::case::Case;
use ipvs_conformance::subject::Trouble;

use crate::rng::Rng;

mod edges;
mod flow;
mod long;
mod scene;
mod service;
mod shape;
mod topics;

pub(crate) use long::LONG;
pub(crate) use scene::Scene;
pub(crate) use topics::{TOPICS, Topic};

/// The scenario of this seed, about one of `topics`.
///
/// Time goes by in it if it is `timed`. It has `longer` times as many packets as usual.
pub(crate) fn scenario(
    seed: u64,
    topics: &[&Topic],
    timed: bool,
    longer: usize,
) -> Result<Case, Trouble> {
    let mut rng = Rng::new(seed);
    let Some(topic) = rng.one_of(topics) else {
        return Err(Trouble::Unsupported("no topic".into()));
    };
    let mut scene = Scene::new(rng, timed)?;
    scene.longer = longer;
    topic.shape.play(&mut scene)?;
    Ok(scene.into_case(&format!("{}-{seed}", topic.name), topic))
}
