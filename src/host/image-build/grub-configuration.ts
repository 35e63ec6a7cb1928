/** What GRUB does at boot: no menu, as nobody watches. Its messages go where the console is. */
export function grubConfiguration(commandLine: string, kernel: string, initrd: string): string {
  return [
    "set timeout=0",
    "serial --unit=0 --speed=115200",
    "terminal_input serial console",
    "terminal_output serial console",
    `linux ${kernel} ${commandLine}`,
    `initrd ${initrd}`,
    "boot",
    "",
  ].join("\n");
}
