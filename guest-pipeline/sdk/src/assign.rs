//! Optimal assignment of rows to columns: the Hungarian method (Kuhn 1955) by shortest augmenting
//! paths with potentials (Jonker and Volgenant 1987; Crouse, "On implementing 2D rectangular
//! assignment algorithms", 2016).

/// Pairs rows with columns, each at most once, so that the sum of the pairs' gains is as large as
/// can be. A pair whose gain is not above 0 is left out.
///
/// Time grows with the square of the smaller number times the larger. The same input gives the same
/// pairs; they come in order of the rows.
#[must_use]
pub fn assign(
    rows: usize,
    columns: usize,
    gain: impl Fn(usize, usize) -> f64,
) -> Vec<(usize, usize)> {
    // A negative or a missing gain is no worse than not to pair; the pairs that this makes up are
    // left out below.
    let cost = |row: usize, column: usize| -gain(row, column).max(0.0);
    let mut pairs = if rows <= columns {
        solve(rows, columns, cost)
    } else {
        solve(columns, rows, |column, row| cost(row, column))
            .into_iter()
            .map(|(c, r)| (r, c))
            .collect()
    };
    pairs.retain(|&(row, column)| gain(row, column) > 0.0);
    pairs.sort_unstable();
    pairs
}

/// Pairs every row with a column of its own at the least sum of costs. Needs `rows <= columns`.
// Every index is a row or column number made here, below the length of what it indexes.
#[allow(clippy::indexing_slicing)]
fn solve(rows: usize, columns: usize, cost: impl Fn(usize, usize) -> f64) -> Vec<(usize, usize)> {
    let mut row_potential = vec![0.0; rows];
    let mut column_potential = vec![0.0; columns];
    let mut row_of: Vec<Option<usize>> = vec![None; columns];
    let mut distance = vec![0.0; columns];
    let mut done = vec![false; columns];
    // On the shortest path to a column: the column before it, none at the path's start.
    let mut before: Vec<Option<usize>> = vec![None; columns];

    for start in 0..rows {
        distance.fill(f64::INFINITY);
        done.fill(false);
        before.fill(None);
        let (mut row, mut reached, mut length) = (start, None, 0.0);
        // Dijkstra over reduced costs, until a column that is still free.
        let free = loop {
            for column in (0..columns).filter(|&c| !done[c]) {
                let through =
                    length + cost(row, column) - row_potential[row] - column_potential[column];
                if through < distance[column] {
                    distance[column] = through;
                    before[column] = reached;
                }
            }
            let open = (0..columns).filter(|&c| !done[c]);
            let Some(next) = open.min_by(|&a, &b| distance[a].total_cmp(&distance[b])) else {
                // Only with more rows than columns.
                return Vec::new();
            };
            done[next] = true;
            length = distance[next];
            match row_of[next] {
                Some(taken_by) => (row, reached) = (taken_by, Some(next)),
                None => break next,
            }
        };
        row_potential[start] += length;
        for column in (0..columns).filter(|&c| done[c] && c != free) {
            column_potential[column] -= length - distance[column];
            if let Some(row) = row_of[column] {
                row_potential[row] += length - distance[column];
            }
        }
        // Along the path each column takes the row of the one before it; the first takes the new
        // row.
        let mut column = free;
        while let Some(previous) = before[column] {
            row_of[column] = row_of[previous];
            column = previous;
        }
        row_of[column] = Some(start);
    }
    row_of
        .into_iter()
        .enumerate()
        .filter_map(|(column, row)| row.map(|row| (row, column)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The best sum of gains, by trying everything.
    fn best(gains: &[Vec<f64>], row: usize, taken: &mut Vec<bool>) -> f64 {
        if row == gains.len() {
            return 0.0;
        }
        let mut most = best(gains, row + 1, taken);
        for column in 0..taken.len() {
            if !taken[column] && gains[row][column] > 0.0 {
                taken[column] = true;
                most = most.max(gains[row][column] + best(gains, row + 1, taken));
                taken[column] = false;
            }
        }
        most
    }

    proptest! {
        #[test]
        fn no_other_assignment_gains_more(
            (rows, columns, values) in (0usize..6, 0usize..6).prop_flat_map(|(r, c)| {
                (Just(r), Just(c), prop::collection::vec(-0.5f64..1.0, r * c))
            }),
        ) {
            let gains: Vec<Vec<f64>> = (0..rows).map(|r| values[r * columns..(r + 1) * columns].to_vec()).collect();
            let pairs = assign(rows, columns, |r, c| gains[r][c]);
            let total: f64 = pairs.iter().map(|&(r, c)| gains[r][c]).sum();
            prop_assert!((total - best(&gains, 0, &mut vec![false; columns])).abs() < 1e-9);
            for (i, a) in pairs.iter().enumerate() {
                prop_assert!(gains[a.0][a.1] > 0.0);
                prop_assert!(pairs[..i].iter().all(|b| a.0 != b.0 && a.1 != b.1), "each at most \
                    once");
            }
        }
    }

    #[test]
    fn the_whole_counts_not_the_best_single_pair() {
        // Taking 0.9 first would leave row 1 with nothing.
        let gains = [[0.9, 0.8], [0.7, 0.0]];
        assert_eq!(assign(2, 2, |r, c| gains[r][c]), [(0, 1), (1, 0)]);
    }

    #[test]
    fn a_gain_that_is_not_a_number_pairs_nothing() {
        assert!(assign(1, 1, |_, _| f64::NAN).is_empty());
        assert!(assign(0, 3, |_, _| 1.0).is_empty());
    }
}
