//! The best one-to-one assignment between rows and columns: for whom would another partner have been better overall?

/// Solves assignment problems of any size up to the one it was made for, without allocation.
///
/// The Hungarian method with potentials, one shortest augmenting path a row (Kuhn 1955; in the form of Jonker &
/// Volgenant 1987). At most `rows² · columns` steps, and in practice nearer `rows · columns`, because most boxes
/// overlap with few others.
#[derive(Debug)]
pub struct Assignment {
    /// Row-major weights, `rows · width` of them, where `width` ≥ `rows` pads with columns that nobody wants.
    weights: Vec<f64>,
    rows: usize,
    columns: usize,
    width: usize,
    /// Dual variables; index 0 is a column outside the problem from which each row sets out.
    row_potential: Vec<f64>,
    column_potential: Vec<f64>,
    /// The row that has each column; 0 for none, rows counted from 1.
    row_of: Vec<usize>,
    /// Minimum reduced cost at which each column can be reached from the current row, and from which column.
    distance: Vec<f64>,
    from: Vec<usize>,
    visited: Vec<bool>,
}

impl Assignment {
    /// With room for `rows` × `columns`.
    pub fn new(rows: usize, columns: usize) -> Self {
        let width = rows.max(columns);
        Self {
            weights: vec![0.0; rows * width],
            rows: 0,
            columns: 0,
            width: 0,
            row_potential: vec![0.0; rows + 1],
            column_potential: vec![0.0; width + 1],
            row_of: vec![0; width + 1],
            distance: vec![0.0; width + 1],
            from: vec![0; width + 1],
            visited: vec![false; width + 1],
        }
    }

    /// Finds the pairs of greatest total weight, and calls `pair(row, column)` for each. A pair whose weight is 0 or
    /// less, or not a number, is never made.
    ///
    /// # Panics
    /// When there are more rows or columns than there is room for.
    pub fn solve(
        &mut self,
        rows: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> f64,
        mut pair: impl FnMut(usize, usize),
    ) {
        (self.rows, self.columns, self.width) = (rows, columns, rows.max(columns));
        assert!(rows < self.row_potential.len() && self.width < self.row_of.len(), "the problem is too large");
        for row in 0..rows {
            for (column, slot) in self.weights[row * self.width..][..self.width].iter_mut().enumerate() {
                let weight = if column < columns { weight(row, column) } else { 0.0 };
                *slot = if weight > 0.0 && weight < f64::INFINITY { weight } else { 0.0 };
            }
        }
        self.row_potential.fill(0.0);
        self.column_potential.fill(0.0);
        self.row_of.fill(0);
        for row in 1..=rows {
            // A row that fits nothing would only take a column that no other row gains by.
            if self.weights[(row - 1) * self.width..][..columns].iter().any(|&w| w > 0.0) {
                self.place(row);
            }
        }
        for column in 1..=columns {
            let row = self.row_of[column];
            if row != 0 && self.weights[(row - 1) * self.width + column - 1] > 0.0 {
                pair(row - 1, column - 1);
            }
        }
    }

    /// Gives `row` a column, along the shortest path of rows that move over for each other.
    fn place(&mut self, row: usize) {
        self.row_of[0] = row;
        self.distance[..=self.width].fill(f64::INFINITY);
        self.visited[..=self.width].fill(false);
        let mut column = 0;
        while self.row_of[column] != 0 || column == 0 {
            self.visited[column] = true;
            let from_row = self.row_of[column];
            let weights = &self.weights[(from_row - 1) * self.width..][..self.width];
            let (mut step, mut next) = (f64::INFINITY, 0);
            for j in 1..=self.width {
                if self.visited[j] {
                    continue;
                }
                let reduced = -weights[j - 1] - self.row_potential[from_row] - self.column_potential[j];
                if reduced < self.distance[j] {
                    self.distance[j] = reduced;
                    self.from[j] = column;
                }
                if self.distance[j] < step {
                    (step, next) = (self.distance[j], j);
                }
            }
            for j in 0..=self.width {
                if self.visited[j] {
                    self.row_potential[self.row_of[j]] += step;
                    self.column_potential[j] -= step;
                } else {
                    self.distance[j] -= step;
                }
            }
            column = next;
        }
        while column != 0 {
            let previous = self.from[column];
            self.row_of[column] = self.row_of[previous];
            column = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn solved(assignment: &mut Assignment, weights: &[Vec<f64>]) -> Vec<(usize, usize)> {
        let (rows, columns) = (weights.len(), weights.first().map_or(0, Vec::len));
        let mut pairs = Vec::new();
        assignment.solve(rows, columns, |r, c| weights[r][c], |r, c| pairs.push((r, c)));
        pairs
    }

    /// Maximum total over all assignments.
    fn brute_force(weights: &[Vec<f64>], row: usize, taken: &mut Vec<bool>) -> f64 {
        if row == weights.len() {
            return 0.0;
        }
        let mut best = brute_force(weights, row + 1, taken);
        for column in 0..taken.len() {
            if !taken[column] && weights[row][column] > 0.0 {
                taken[column] = true;
                best = best.max(weights[row][column] + brute_force(weights, row + 1, taken));
                taken[column] = false;
            }
        }
        best
    }

    fn weights() -> impl Strategy<Value = Vec<Vec<f64>>> {
        let weight = prop_oneof![3 => -1.0..1.0f64, 1 => Just(0.0), 1 => Just(0.5)];
        (0usize..6, 0usize..7)
            .prop_flat_map(move |(r, c)| prop::collection::vec(prop::collection::vec(weight.clone(), c), r))
    }

    proptest! {
        #[test]
        fn no_other_pairing_weighs_more(problems in prop::collection::vec(weights(), 1..4)) {
            let mut assignment = Assignment::new(6, 7);
            for weights in problems {
                let pairs = solved(&mut assignment, &weights);
                let columns = weights.first().map_or(0, Vec::len);
                let (mut rows_seen, mut columns_seen) = (vec![false; weights.len()], vec![false; columns]);
                for &(r, c) in &pairs {
                    prop_assert!(weights[r][c] > 0.0);
                    prop_assert!(!rows_seen[r] && !columns_seen[c], "{:?}", pairs);
                    (rows_seen[r], columns_seen[c]) = (true, true);
                }
                let total: f64 = pairs.iter().map(|&(r, c)| weights[r][c]).sum();
                prop_assert!((total - brute_force(&weights, 0, &mut vec![false; columns])).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn the_greedy_choice_is_given_up_where_the_whole_gains() {
        let weights = [vec![0.9, 0.8], vec![0.7, 0.0]];
        assert_eq!(solved(&mut Assignment::new(2, 2), &weights), [(1, 0), (0, 1)]);
    }

    #[test]
    fn what_is_not_a_number_is_not_paired() {
        let weights = [vec![f64::NAN, f64::INFINITY], vec![f64::NAN, 0.1]];
        assert_eq!(solved(&mut Assignment::new(2, 2), &weights), [(1, 1)]);
    }
}
