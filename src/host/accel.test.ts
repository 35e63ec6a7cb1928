import { expect, test } from "bun:test";
import { chooseAccel, kvmVeto } from "./accel.ts";

test("what costs nothing to look at can rule KVM out, and says why", () => {
  const intel = "processor\t: 0\nflags\t\t: fpu vme vmx sse\n";
  expect(kvmVeto(intel, "/nonexistent/kvm")).toContain("there is no /nonexistent/kvm");
  expect(kvmVeto(intel, "/dev/null")).toBeUndefined();
  expect(kvmVeto(intel.replace("vmx", "svm"), "/dev/null")).toBeUndefined();
  expect(kvmVeto(intel.replace("vmx", "vmxnet"), "/dev/null")).toContain("neither VMX nor SVM");
});

test("the operator's word is taken", async () => {
  for (const mode of ["kvm", "tcg", "none"] as const) {
    expect(await chooseAccel({ mode, dataDir: "/nonexistent" })).toMatchObject({ accel: mode });
  }
});
