/** The unit, as systemd reads it (systemd-analyze), and what its hardening comes to. */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"

const analyze = (...args: string[]) => spawnSync("systemd-analyze", args, { encoding: "utf8" })
const found = analyze("--version").status === 0
if (!found) console.log("there is no systemd-analyze here: the unit is not checked")

describe.skipIf(!found)("the unit", () => {
  const folder = mkdtempSync(join(tmpdir(), "slos-unit-"))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, "slos-serve.service")
  const text = readFileSync(join(import.meta.dirname, "systemd/slos-serve.service"), "utf8")
  // The program need not be installed to be checked.
  writeFileSync(path, text.replace("/usr/local/bin/slos-serve", process.execPath))

  it("is one that systemd takes without a word", () => {
    const { status, stdout, stderr } = analyze("verify", "--man=no", path)
    expect(`${stdout}${stderr}`.split("\n").filter((line) => line.includes("slos-serve"))).toEqual([])
    expect(status).toBe(0)
  })

  it("is exposed to little: 'OK' by systemd's own count, below 2 of 10", () => {
    const { stdout, stderr } = analyze("security", "--offline=yes", "--no-pager", path)
    const exposure = /Overall exposure level for slos-serve\.service: ([\d.]+)/.exec(stdout)?.[1]
    expect(Number(exposure), stdout + stderr).toBeLessThan(2)
  })
})
