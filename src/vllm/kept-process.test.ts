/** Programs that are kept running: their start, their deaths, their end with all that they started. */
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, describe, expect, test } from "vitest"
import { ChildLog, saidBy } from "./child-log.ts"
import { OrphanGuard } from "./guard.ts"
import { type KeptOptions, KeptProcess } from "./kept-process.ts"

const folder = mkdtempSync(join(tmpdir(), "slos-serve-test-"))
const opened: { close(): unknown }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})
let files = 0

function keep(script: string, changes: Partial<KeptOptions> = {}) {
  const lines: string[] = []
  const told: string[] = []
  const guard = new OrphanGuard()
  const log = new ChildLog({ file: join(folder, `${++files}.log`), onLine: (line) => lines.push(line) })
  const kept = new KeptProcess({
    ...{ name: "it", guard, log },
    launch: { program: "sh", args: ["-c", script], environment: { WORD: "hello" } },
    isReady: async () => lines.includes("ready"),
    tell: (message) => told.push(message),
    restarts: { firstUs: 1000, longestUs: 10_000, stableUs: 1e9 },
    ...changes,
  })
  opened.push(log, guard, kept)
  return { kept, lines, told, log }
}

/** Of the process that a script started in the background, as it said. */
const pidIn = (lines: readonly string[]) => Number(lines.find((line) => line.startsWith("pid "))!.slice(4))
function lives(pid: number): boolean {
  try {
    // A zombie that is not waited for yet is dead.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))
  } catch {
    return false
  }
}
const WITH_CHILD = "sleep 1000 & echo pid $!; echo ready;"
const WITH_CHILD_STAYS = `${WITH_CHILD} wait`

describe("start and end", () => {
  test("ready when it says so; with it ends what it started", async () => {
    const { kept, lines } = keep(`echo $WORD; ${WITH_CHILD} wait`)
    await kept.start()
    expect(lines).toContain("hello")
    const pid = pidIn(lines)
    expect(lives(pid)).toBe(true)
    await kept.close()
    await expect.poll(() => lives(pid)).toBe(false)
    expect(kept.pid).toBeUndefined()
    expect(kept.restarted).toBe(0)
  })

  test("one that ends before it is ready is an error, and is not started again", async () => {
    const { kept, told, log } = keep("echo cause >&2; exit 3")
    await expect(kept.start()).rejects.toThrow("it ended with exit code 3 before it was ready")
    expect(log.last).toEqual(["cause"])
    expect(readFileSync(log.file, "utf8")).toMatch(/^\$ sh -c echo cause[^\n]*\ncause\n$/)
    expect(told).toEqual([])
    const none = keep("", { launch: { program: join(folder, "none"), args: [], environment: {} } })
    await expect(none.kept.start()).rejects.toThrow(/it could not be started \(.*ENOENT\)/)
  })

  test("one that dies later is started again, without what it left", async () => {
    const die = join(folder, `${++files}.flag`)
    const { kept, lines, told } = keep(
      `${WITH_CHILD} if [ -e ${die} ]; then wait; fi; while [ ! -e ${die} ]; do sleep 0.1; done; kill -9 $$`,
    )
    await kept.start()
    writeFileSync(die, "")
    const first = pidIn(lines)
    await expect.poll(() => told).toEqual(["it died of SIGKILL; it is started again now", "it is back"])
    expect(lives(first)).toBe(false)
    expect(kept.restarted).toBe(1)
    expect(kept.pid).toBeDefined()
  })

  test("one that lives but stands still is ended and started again", async () => {
    let well = true
    const { kept, lines, told } = keep(WITH_CHILD_STAYS, { isReady: async () => well, stillMs: 200 })
    await kept.start()
    await expect.poll(() => lines).toContain("ready")
    const first = pidIn(lines)
    well = false
    await expect.poll(() => told.length).toBe(2)
    expect(told).toEqual(["it has not answered for 0.2 s", "it died of SIGKILL; it is started again now"])
    well = true
    await expect.poll(() => told.at(-1)).toBe("it is back")
    expect(lives(first)).toBe(false)
    expect(kept.restarted).toBe(1)
  })

  test("keys are not in its log", async () => {
    const launch = {
      program: "sh",
      args: ["-c", "echo ready; sleep 1000", "--api-key", "s3cret", "--api-key=s3cret"],
      environment: {},
    }
    const { kept, log } = keep("", { launch })
    await kept.start()
    await kept.close()
    expect(readFileSync(log.file, "utf8")).not.toMatch("s3cret")
  })
})

test("what is watched over ends when its starter is killed, whatever it makes of being asked", async () => {
  const told = join(folder, `${++files}.json`)
  const starter = `
    import { spawn } from "node:child_process"
    import { writeFileSync } from "node:fs"
    import { OrphanGuard } from ${JSON.stringify(new URL("./guard.ts", import.meta.url).href)}
    const guard = new OrphanGuard()
    const polite = spawn("sleep", ["1000"], { detached: true, stdio: "ignore" })
    const group = spawn("sh", ["-c", "sleep 1000 & sleep 1000"], { detached: true, stdio: "ignore" })
    const other = spawn("sleep", ["1000"], { detached: true, stdio: "ignore" })
    for (const { pid } of [polite, group, other]) guard.watch(pid)
    guard.forget(other.pid)
    setTimeout(() => writeFileSync(${JSON.stringify(told)}, JSON.stringify([polite.pid, group.pid, other.pid])), 300)
    setTimeout(() => {}, 60_000)`
  const program = join(folder, "starter.ts")
  writeFileSync(program, starter)
  const child = spawn(process.execPath, [program], { stdio: "inherit" })
  await expect.poll(() => existsSync(told) && readFileSync(told, "utf8") !== "").toBe(true)
  const [polite, group, other] = JSON.parse(readFileSync(told, "utf8")) as [number, number, number]
  expect([polite, group, other].map(lives)).toEqual([true, true, true])
  child.kill("SIGKILL")
  await expect.poll(() => [polite, group].map(lives)).toEqual([false, false])
  expect(lives(other)).toBe(true)
  process.kill(other, "SIGKILL")
})

describe("what it says", () => {
  test.each([
    [
      "(APIServer pid=12) INFO 11-28 20:00:00 [api_server.py:12] Starting vLLM server",
      "Starting vLLM server",
    ],
    ["(EngineCore_DP0 pid=12) Loading shards: 50% Completed", "Loading shards: 50% Completed"],
    ["WARNING 11-28 20:00:00 [cpu.py:1] Slow", "Slow"],
    ["Traceback (most recent call last):", "Traceback (most recent call last):"],
    ["(APIServer pid=1) INFO 11-28 20:00:00 [utils.py:1]   █▄█▀ █     █     █", null],
    ["----------", null],
  ])("%s", (line, said) => expect(saidBy(line)).toBe(said))

  test("a file that is full begins anew; the last lines are kept, a bar's states as lines", async () => {
    const file = join(folder, `${++files}.log`)
    const lines: string[] = []
    const log = new ChildLog({ file, mostBytes: 100, onLine: (line) => lines.push(line) })
    opened.push(log)
    const child = spawn("sh", [
      "-c",
      "printf 'a\\rb\\r\\n\\n\\033[1mc\\033[0m\\n'; for i in 1 2 3 4 5 6 7 8; do echo line $i of many; done; printf rest",
    ])
    log.read(child.stdout)
    await new Promise((resolve) => child.on("close", resolve))
    expect(lines.slice(0, 3)).toEqual(["a", "b", "c"])
    expect(lines.at(-1)).toBe("rest")
    expect(log.last.at(-1)).toBe("rest")
    expect(log.last.length).toBeLessThanOrEqual(20)
    expect(existsSync(`${file}.1`)).toBe(true)
  })

  test("a file that cannot be written is said in one line", () => {
    expect(() => new ChildLog({ file: "/dev/null/x/y.log", onLine: () => {} })).toThrow(
      /cannot write \/dev\/null.*--vllm-log/,
    )
  })
})
