//! The ways for the guest to switch itself off or reset itself.

use super::layout::{I8042_COMMAND_PORT, RESET_PORT, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT};
use crate::end::End;

/// What the kernel writes to the reset port: full reset, as on PIIX and ICH chips.
pub(crate) const RESET_VALUE: u8 = 0x06;
/// `SLP_TYPx` of soft off, as `_S5` tells it.
pub(crate) const SLEEP_TYPE_OFF: u8 = 5;

/// Sleep control register (ACPI 6.5, section 4.8.3.7): `SLP_EN`, and `SLP_TYPx` in bits 4:2.
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;

/// The bit of the reset port that resets; bit 1 only says how.
const RESET_NOW: u8 = 1 << 2;

/// Keyboard controller: pulse the reset line.
const I8042_RESET: u8 = 0xfe;

pub(crate) fn port_write(port: u16, data: &[u8]) -> Option<End> {
    let &[value, ..] = data else { return None };
    match port {
        // One port of the PCI address register: only a single byte is meant for the reset.
        RESET_PORT if data.len() == 1 && value & RESET_NOW != 0 => Some(End::Reset),
        I8042_COMMAND_PORT if value == I8042_RESET => Some(End::Reset),
        SLEEP_CONTROL_PORT
            if value & SLEEP_ENABLE != 0
                && value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK == SLEEP_TYPE_OFF =>
        {
            Some(End::PoweredOff)
        }
        _ => None,
    }
}

/// The sleep registers read as "awake"; a keyboard controller is not there, but its status port says
/// "ready", so that a kernel's reset doesn't wait for it.
pub(crate) fn port_read(port: u16, data: &mut [u8]) {
    if [
        SLEEP_CONTROL_PORT,
        SLEEP_STATUS_PORT,
        I8042_COMMAND_PORT,
        RESET_PORT,
    ]
    .contains(&port)
    {
        data.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_ends_the_machine_and_nothing_else_does() {
        let off = SLEEP_ENABLE | SLEEP_TYPE_OFF << SLEEP_TYPE_SHIFT;
        assert_eq!(
            port_write(SLEEP_CONTROL_PORT, &[off]),
            Some(End::PoweredOff)
        );
        assert_eq!(port_write(RESET_PORT, &[RESET_VALUE]), Some(End::Reset));
        assert_eq!(
            port_write(I8042_COMMAND_PORT, &[I8042_RESET]),
            Some(End::Reset)
        );
        assert_eq!(port_write(SLEEP_CONTROL_PORT, &[SLEEP_ENABLE]), None);
        assert_eq!(port_write(RESET_PORT, &[0x02]), None);
        assert_eq!(port_write(RESET_PORT, &[0x06, 0]), None);
        assert_eq!(port_write(0x80, &[off]), None);
        assert_eq!(port_write(RESET_PORT, &[]), None);
    }
}
