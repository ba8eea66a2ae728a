//! The scenarios: what each makes fail, and what only it looks at. They end nothing that they did not break themselves.

mod crashes;

use super::args::Name;
use super::scene::Scene;

/// Plays one of them, from a group at work to a group that is whole again.
pub(super) fn play(name: Name, scene: &mut Scene) -> anyhow::Result<()> {
    match name {
        Name::All => Ok(()),
        Name::SenderDead => crashes::sender_dead(scene),
    }
}
