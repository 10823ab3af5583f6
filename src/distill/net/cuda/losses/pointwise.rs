//! Several operations value by value in one launch.

use super::super::arguments::{self as arg, int};
use super::access::{four_axes, Access};

/// Inputs and instructions of a launch, at most.
pub const MOST_INPUTS: usize = 6;
const MOST_INSTRUCTIONS: usize = 24;

/// What is computed of each value, of inputs of one shape (after broadcasting).
#[derive(Debug, Clone, Default)]
pub struct Expression {
    pub inputs: Vec<Access>,
    /// Each with the registers that it reads: those of the inputs, then of the instructions before.
    instructions: Vec<Instruction>,
}

#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    operands: [Register; 2],
    number: usize,
}

/// Resolved when all inputs are known.
#[derive(Debug, Clone, Copy)]
enum Register {
    Input(usize),
    Instruction(usize),
}

/// The code of a factor and an offset.
pub const AFFINE: u16 = 9;

/// The code that leaves a value as it is.
const SAME: u16 = 25;

/// That of zero.
const ZERO: u16 = 26;

impl Expression {
    /// The values themselves.
    pub fn of(input: Access) -> Self {
        Self { inputs: vec![input], instructions: vec![] }
    }

    /// Zero everywhere.
    pub fn zero() -> Self {
        let instruction = Instruction { code: ZERO, operands: [Register::Input(0); 2], number: 0 };
        Self { inputs: vec![], instructions: vec![instruction] }
    }

    /// `code` of one or two expressions, or of none; `None` if that is too much for one launch.
    pub fn apply(code: u16, number: usize, operands: &[&Self]) -> Option<Self> {
        let mut all = Self::default();
        let mut registers = [Register::Input(0); 2];
        for (register, operand) in registers.iter_mut().zip(operands) {
            *register = all.include(operand);
        }
        if operands.len() == 1 {
            registers[1] = registers[0];
        }
        all.instructions.push(Instruction { code, operands: registers, number });
        let fits = all.inputs.len() <= MOST_INPUTS && all.instructions.len() < MOST_INSTRUCTIONS;
        fits.then_some(all)
    }

    /// Adds another's inputs and instructions; the register of its result.
    fn include(&mut self, other: &Self) -> Register {
        let inputs: Vec<usize> = other.inputs.iter().map(|input| self.input(input)).collect();
        let first = self.instructions.len();
        let moved = |register: Register| match register {
            Register::Input(at) => Register::Input(inputs.get(at).copied().unwrap_or(0)),
            Register::Instruction(at) => Register::Instruction(first + at),
        };
        self.instructions
            .extend(other.instructions.iter().map(|i| Instruction { operands: i.operands.map(moved), ..*i }));
        match other.instructions.len() {
            0 => Register::Input(inputs[0]),
            count => Register::Instruction(first + count - 1),
        }
    }

    fn input(&mut self, access: &Access) -> usize {
        let known = self.inputs.iter().position(|input| input == access);
        known.unwrap_or_else(|| {
            self.inputs.push(access.clone());
            self.inputs.len() - 1
        })
    }

    /// The launch's argument for a `result` of the same shape; `numbers`: their address.
    pub fn argument(&self, result: &Access, numbers: u64) -> arg::Pointwise {
        let sizes = &result.sizes;
        let expanded: Vec<Access> = self.inputs.iter().map(|input| input.expanded(sizes)).collect();
        let mut strides: Vec<&[usize]> = vec![&result.strides];
        strides.extend(expanded.iter().map(|input| &input.strides[..]));
        let (sizes, strides) = four_axes(sizes, &strides);
        let mut argument = arg::Pointwise {
            result: result.start,
            numbers,
            sizes: sizes.map(int),
            result_strides: strides[0].map(int),
            count: int(sizes.iter().product()),
            inputs_used: int(self.inputs.len()),
            instructions_used: int(self.instructions.len().max(1)),
            ..arg::Pointwise::default()
        };
        for (i, input) in self.inputs.iter().enumerate() {
            argument.inputs[i] = input.start;
            argument.strides[i] = strides[1 + i].map(int);
        }
        let register = |register: Register| match register {
            Register::Input(at) => at as u16,
            Register::Instruction(at) => (self.inputs.len() + at) as u16,
        };
        // Without an instruction it is a copy.
        argument.instructions[0] = [SAME, 0, 0, 0];
        for (to, instruction) in argument.instructions.iter_mut().zip(&self.instructions) {
            let [first, second] = instruction.operands.map(register);
            *to = [instruction.code, first, second, instruction.number as u16];
        }
        argument
    }
}
