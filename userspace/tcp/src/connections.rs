//! All connections of a stack: a dense slab in pages, so that growing moves none of them.

use crate::tcb::Tcb;

/// Records in a page: 1 MiB of them, which one allocation still takes without being noticed.
const PAGE: usize = 4096;

/// Names one connection; never used again while the stack lives.
///
/// The slot is small and dense, and reused; the generation tells its users apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

impl ConnectionId {
    /// Index for a table of the driver's own: below the largest number of connections there ever were.
    #[must_use]
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    /// As a number; [`from_u64`](Self::from_u64) is the inverse.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// From a number that [`to_u64`](Self::to_u64) gave.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let (slot, generation) = (number as u32, (number >> 32) as u32);
        Self { slot, generation }
    }
}

struct Slot<F> {
    generation: u32,
    tcb: Option<Tcb<F>>,
}

/// The slab.
pub(crate) struct Connections<F> {
    pages: Vec<Vec<Slot<F>>>,
    free: Vec<u32>,
    len: usize,
}

impl<F> Default for Connections<F> {
    fn default() -> Self {
        Self { pages: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<F> Connections<F> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Keeps a record.
    pub(crate) fn insert(&mut self, tcb: Tcb<F>) -> ConnectionId {
        self.len += 1;
        if let Some(index) = self.free.pop() {
            let slot = &mut self.pages[index as usize / PAGE][index as usize % PAGE];
            slot.tcb = Some(tcb);
            return ConnectionId { slot: index, generation: slot.generation };
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let full = (self.pages.len() - 1) * PAGE;
        let page = self.pages.last_mut().expect("pushed above if there was none with room");
        let index = u32::try_from(full + page.len()).expect("connections_max is far below 2^32");
        page.push(Slot { generation: 0, tcb: Some(tcb) });
        ConnectionId { slot: index, generation: 0 }
    }

    /// The record in a slot, with its full name.
    pub(crate) fn at(&mut self, index: u32) -> Option<(ConnectionId, &mut Tcb<F>)> {
        let slot = self.pages.get_mut(index as usize / PAGE)?.get_mut(index as usize % PAGE)?;
        let id = ConnectionId { slot: index, generation: slot.generation };
        slot.tcb.as_mut().map(|tcb| (id, tcb))
    }

    pub(crate) fn peek(&self, index: u32) -> Option<&Tcb<F>> {
        self.pages.get(index as usize / PAGE)?.get(index as usize % PAGE)?.tcb.as_ref()
    }

    /// The full name of the record in a slot.
    pub(crate) fn name(&self, index: u32) -> Option<ConnectionId> {
        let slot = self.pages.get(index as usize / PAGE)?.get(index as usize % PAGE)?;
        slot.tcb.as_ref().map(|_| ConnectionId { slot: index, generation: slot.generation })
    }

    pub(crate) fn view(&self, id: ConnectionId) -> Option<&Tcb<F>> {
        let slot = self.pages.get(id.slot() / PAGE)?.get(id.slot() % PAGE)?;
        slot.tcb.as_ref().filter(|_| slot.generation == id.generation)
    }

    /// True if `id` still names a connection.
    pub(crate) fn contains(&self, id: ConnectionId) -> bool {
        self.view(id).is_some()
    }

    pub(crate) fn view_mut(&mut self, id: ConnectionId) -> Option<&mut Tcb<F>> {
        self.at(id.slot).filter(|(there, _)| *there == id).map(|(_, tcb)| tcb)
    }

    /// Forgets a record. Its name is never used again: a slot whose generations are used up stays empty.
    pub(crate) fn remove(&mut self, index: u32) -> Option<Tcb<F>> {
        let slot = self.pages.get_mut(index as usize / PAGE)?.get_mut(index as usize % PAGE)?;
        let tcb = slot.tcb.take()?;
        self.len -= 1;
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(index);
        }
        Some(tcb)
    }

    /// Slots that there are, used or not.
    pub(crate) fn slots(&self) -> u32 {
        let full = self.pages.len().saturating_sub(1) * PAGE;
        u32::try_from(full + self.pages.last().map_or(0, Vec::len)).expect("insert has checked it")
    }

    /// All records with their slots.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Tcb<F>)> {
        (0..)
            .zip(self.pages.iter_mut().flatten())
            .filter_map(|(index, slot)| Some((index, slot.tcb.as_mut()?)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tcb<F>> {
        self.pages.iter().flatten().filter_map(|slot| slot.tcb.as_ref())
    }
}
