//! The update of a network's parameters on the device: alone, or as the end of a step.

use peregrine_engine::cuda::driver::{DeviceMemory, MemoryKind};
use peregrine_engine::cuda::launch::{Node, NodeWork, Span};
use peregrine_engine::cuda::plain::Plain;

use super::arguments::{Outcome, Step};
use super::graphs::Parts;
use super::memory::{bytes_of, instantiate, run, upload_step, whole};
use super::nodes::Plan;
use super::passes::CudaNet;
use super::update::{Rule, Update, UpdateMemory};
use crate::net::NetParams;

impl CudaNet {
    /// Has [`update`](Self::update) follow `rule`, from the memory `slots` of each trainable tensor
    /// (none: zeros) and the `average`.
    ///
    /// # Errors
    /// When the device fails, or has too little memory.
    pub fn optimize(&mut self, rule: Rule, slots: &[Vec<&[f32]>], average: &NetParams) -> anyhow::Result<()> {
        let parameters = &self.layout.parameters;
        let slot = |i: usize| {
            let of = slots.get(i).map_or(&[][..], |slot| &slot[..]);
            DeviceMemory::holding(&self.driver, &bytes_of(&parameters.gather(of.iter().copied())))
        };
        let slots = (0..rule.slots()).map(slot).collect::<Result<Vec<_>, _>>()?;
        let average = DeviceMemory::holding(&self.driver, &bytes_of(&parameters.values(average)))?;
        let groups: Vec<u8> = parameters.groups.iter().flat_map(Plain::bytes).collect();
        let groups = DeviceMemory::holding(&self.driver, &groups)?;
        let bytes = UpdateMemory::partial_bytes(parameters.trainable);
        let partial = DeviceMemory::new(&self.driver, MemoryKind::Device, bytes)?;
        let on_device = DeviceMemory::new(&self.driver, MemoryKind::Device, size_of::<Outcome>())?;
        let outcome = DeviceMemory::new(&self.driver, MemoryKind::Download, size_of::<Outcome>())?;
        let memory = UpdateMemory {
            rule,
            slots: slots.iter().map(whole).collect(),
            average: whole(&average),
            groups: whole(&groups),
            partial: whole(&partial),
            outcome: whole(&on_device),
            loss: None,
        };
        let mut nodes = vec![upload_step(&self.step_host, &self.step)];
        nodes.extend(update_nodes(&self.plan(), &memory, &outcome));
        let instance = instantiate(&self.driver, &nodes)?;
        let device = [groups, partial, on_device];
        let (is_announced, is_done) = (false, false);
        let update = Update { instance, memory, is_announced, is_done, slots, average, outcome, _device: device };
        self.update = Some(update);
        Ok(())
    }

    /// Has the next [`step`](Self::step) end with the update that [`update`](Self::update) then tells of.
    pub fn announce(&mut self, step: Step) {
        if let Some(update) = &mut self.update {
            update.is_announced = true;
            Step { loss_scale: self.loss_scale.get(), ..step }.write(self.step_host.as_mut_slice());
        }
    }

    pub(super) fn is_announced(&self) -> bool {
        self.update.as_ref().is_some_and(|update| update.is_announced)
    }

    /// The launches of the update, and the copy of what came of it; none if the `loss` there is not
    /// finite.
    pub(super) fn update_nodes(&self, loss: Option<Span>) -> Vec<Node> {
        let update = self.update.as_ref().expect("it was announced");
        update_nodes(&self.plan(), &UpdateMemory { loss, ..update.memory.clone() }, &update.outcome)
    }

    /// Where the moving average is on the device.
    pub(super) fn average(&self) -> Option<u64> {
        self.update.as_ref().map(|update| update.average.device())
    }

    /// A graph of losses has run.
    pub(super) fn ran(&mut self, parts: Parts) {
        self.has_gradients = !parts.update;
        if let Some(update) = self.update.as_mut().filter(|_| parts.update) {
            (update.is_announced, update.is_done) = (false, true);
        }
    }

    /// Updates all parameters and the average by their gradients, which are zero then. Returns the
    /// norm of the gradient before clipping; where that is not finite, nothing is updated. In half
    /// precision `None` is for gradients that overflowed, so that the step was left out: the next has a
    /// smaller factor.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When [`optimize`](Self::optimize) was not called before.
    pub fn update(&mut self, step: Step) -> anyhow::Result<Option<f32>> {
        Step { loss_scale: self.loss_scale.get(), ..step }.write(self.step_host.as_mut_slice());
        let update = self.update.as_mut().expect("an optimizer was set");
        if !std::mem::take(&mut update.is_done) {
            run(&mut update.instance)?;
        }
        self.has_gradients = false;
        let norm = Outcome::read(update.outcome.as_slice()).norm;
        let goes_on = self.loss_scale.follow(norm.is_finite());
        // The next backward pass begins with it.
        Step { loss_scale: self.loss_scale.get(), ..step }.write(self.step_host.as_mut_slice());
        Ok((norm.is_finite() || !goes_on).then_some(norm))
    }

    /// Updates that were left out, since gradients overflowed in half precision.
    pub fn overflows(&self) -> u64 {
        self.loss_scale.overflows()
    }

    /// Copies the moving average from the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn take_average(&self, average: &mut NetParams) -> anyhow::Result<()> {
        if let Some(update) = &self.update {
            self.layout.parameters.take_values(&self.download(&update.average)?, average);
        }
        Ok(())
    }

    /// The optimizer's memory: for each slot the values of each trainable tensor, in the order of
    /// [`NetParams::trainable`].
    ///
    /// # Errors
    /// When the device fails.
    pub fn slots(&self) -> anyhow::Result<Vec<Vec<Vec<f32>>>> {
        let slots = self.update.iter().flat_map(|update| &update.slots);
        slots.map(|slot| Ok(self.layout.parameters.scatter(&self.download(slot)?))).collect()
    }
}

fn update_nodes(plan: &Plan, memory: &UpdateMemory, outcome: &DeviceMemory) -> Vec<Node> {
    let mut nodes = plan.update(memory);
    nodes.push(Node {
        name: "outcome download".into(),
        work: NodeWork::Download { device: memory.outcome.start, host: outcome.host(), bytes: size_of::<Outcome>() },
        reads: vec![memory.outcome.clone()],
        writes: vec![],
    });
    nodes
}
