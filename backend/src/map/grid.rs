//! Players of one node sorted into cells, so that those near a place are a few contiguous runs.
//!
//! Built anew by each tick (a counting sort, a few nanoseconds a player): nothing to keep in
//! step, and neighbours on the map are neighbours in memory. It knows places and slots only.
//!
//! Invariant: [`Grid::runs`] covers everybody within the radius, since a place and a distance
//! are turned into cells by one rising function.

use super::layout::Zone;
use super::node::Spot;

/// Cells of one node a side, at most. A finer grid would not fit the caches.
const CELLS_MAX: u32 = 256;

/// Cell rows that one look-up covers at most: a cell is at least half a view wide, and a look-up
/// reaches two views each way (hysteresis is at most a view): nine rows, and one for rounding.
const RUNS_MAX: usize = 10;

/// Which cell a place is in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cells {
    left: i32,
    top: i32,
    columns: u32,
    rows: u32,
    /// 2³² divided by a cell's side, rounded up: a multiplication is a tenth of a division.
    reciprocal: u64,
}

impl Cells {
    /// Cells for look-ups of up to `radius_units` in a zone.
    pub(super) fn new(zone: Zone, radius_units: u32) -> Self {
        let longest = zone.width_units.max(zone.height_units);
        let side = radius_units
            .div_ceil(2)
            .max(longest.div_ceil(CELLS_MAX))
            .max(1);
        let reciprocal = (1_u64 << 32).div_ceil(u64::from(side));
        let cells = |units: u32| ((u64::from(units) * reciprocal) >> 32) as u32 + 1;
        Self {
            left: zone.left,
            top: zone.top,
            columns: cells(zone.width_units),
            rows: cells(zone.height_units),
            reciprocal,
        }
    }

    fn axis(&self, offset: i32, count: u32) -> u32 {
        let offset = offset.max(0) as u64;
        (((offset * self.reciprocal) >> 32) as u32).min(count - 1)
    }

    fn column(&self, x: i32) -> u32 {
        self.axis(x - self.left, self.columns)
    }

    fn row(&self, y: i32) -> u32 {
        self.axis(y - self.top, self.rows)
    }

    fn index(&self, x: i32, y: i32) -> u32 {
        self.row(y) * self.columns + self.column(x)
    }
}

/// Players in the order of their cells.
#[derive(Debug, Default)]
pub(super) struct Grid {
    /// Where each cell begins; one more for the end. Empty until first used.
    starts: Vec<u32>,
    /// The cell of each slot given, kept between the two passes of the sort.
    cell: Vec<u32>,
    pub(super) x: Vec<i32>,
    pub(super) y: Vec<i32>,
    pub(super) slot: Vec<u32>,
}

/// Some runs of a grid's arrays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs {
    runs: [(u32, u32); RUNS_MAX],
    count: usize,
    /// Players in them.
    pub(super) total: u32,
}

impl Runs {
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.runs[..self.count]
            .iter()
            .map(|&(start, end)| (start as usize, end as usize))
    }

    /// At most `most` of the players, beginning with the `skip`th and going round.
    pub(super) fn window(&self, skip: u32, most: u32) -> [Self; 2] {
        let first = self.cut(skip, most);
        let second = self.cut(0, (most - first.total).min(skip));
        [first, second]
    }

    fn cut(&self, mut skip: u32, mut most: u32) -> Self {
        let mut cut = Self {
            runs: [(0, 0); RUNS_MAX],
            count: 0,
            total: 0,
        };
        for &(start, end) in &self.runs[..self.count] {
            let skipped = skip.min(end - start);
            skip -= skipped;
            let taken = most.min(end - start - skipped);
            most -= taken;
            if taken > 0 {
                cut.runs[cut.count] = (start + skipped, start + skipped + taken);
                cut.count += 1;
                cut.total += taken;
            }
        }
        cut
    }
}

impl Grid {
    /// Sorts these slots, all inside the zone, by the cells of their places.
    pub(super) fn rebuild(&mut self, cells: &Cells, slots: &[u32], spots: &[Spot]) {
        self.starts.clear();
        self.starts
            .resize((cells.columns * cells.rows) as usize + 1, 0);
        self.cell.clear();
        for &slot in slots {
            let spot = &spots[slot as usize];
            let cell = cells.index(spot.x, spot.y);
            self.cell.push(cell);
            self.starts[cell as usize] += 1;
        }
        let mut end = 0;
        for start in &mut self.starts {
            end += *start;
            *start = end;
        }
        self.x.resize(slots.len(), 0);
        self.y.resize(slots.len(), 0);
        self.slot.resize(slots.len(), 0);
        // From behind, so that each cell's end sinks to its start and its order is that given.
        for (&slot, &cell) in slots.iter().zip(&self.cell).rev() {
            let start = &mut self.starts[cell as usize];
            *start -= 1;
            let place = *start as usize;
            self.x[place] = spots[slot as usize].x;
            self.y[place] = spots[slot as usize].y;
            self.slot[place] = slot;
        }
    }

    /// Forgets everybody; for ticks in which there is nobody to sort.
    pub(super) fn clear(&mut self) {
        self.slot.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slot.is_empty()
    }

    /// Everybody within a square around a place, and some more.
    pub(super) fn runs(&self, cells: &Cells, x: i32, y: i32, radius: i32) -> Runs {
        let (left, right) = (cells.column(x - radius), cells.column(x + radius));
        let mut runs = Runs {
            runs: [(0, 0); RUNS_MAX],
            count: 0,
            total: 0,
        };
        for row in cells.row(y - radius)..=cells.row(y + radius) {
            let start = self.starts[(row * cells.columns + left) as usize];
            let end = self.starts[(row * cells.columns + right) as usize + 1];
            if end > start && runs.count < RUNS_MAX {
                runs.runs[runs.count] = (start, end);
                runs.count += 1;
                runs.total += end - start;
            }
        }
        runs
    }
}
