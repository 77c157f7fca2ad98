/** Which program vLLM is, and what it is started with. */
import { chmodSync, mkdirSync, mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, test } from "vitest"
import { readVllmArguments } from "./arguments.ts"
import { checkModel, findVllm, launchOf, PLUGIN_FOLDER } from "./launch.ts"

const root = mkdtempSync(join(tmpdir(), "slos-serve-test-"))

/** A folder with these programs, each a shell script. */
function folder(programs: Record<string, string>): string {
  const path = mkdtempSync(join(root, "bin-"))
  for (const [name, script] of Object.entries(programs)) {
    writeFileSync(join(path, name), `#!/bin/sh\n${script}\n`)
    chmodSync(join(path, name), 0o755)
  }
  return path
}
const found = (path: string, given?: string) => findVllm(given, { PATH: path })

describe("which program", () => {
  test("vllm on the PATH, else a Python that has it", () => {
    const vllm = folder({ vllm: "", python3: "exit 0" })
    expect(found(vllm)).toEqual({ program: join(vllm, "vllm"), before: ["serve"], takesModel: true })
    const python = folder({ python3: "exit 1", python: "exit 0" })
    const before = ["-m", "vllm.entrypoints.openai.api_server"]
    expect(found(python)).toEqual({ program: join(python, "python"), before, takesModel: false })
  })

  test("what the user names: on the PATH, a path, a Python, a command with arguments", () => {
    const path = folder({ mine: "", "python3.12": "", uv: "" })
    expect(found(path, "mine")).toMatchObject({ program: join(path, "mine"), before: ["serve"] })
    expect(found("", join(path, "mine"))).toMatchObject({ program: join(path, "mine") })
    expect(found(path, join(path, "python3.12"))).toMatchObject({ takesModel: false })
    expect(found(path, "uv run vllm")).toMatchObject({
      program: join(path, "uv"),
      before: ["run", "vllm", "serve"],
    })
    expect(found(path, "uv run python3")).toMatchObject({
      takesModel: false,
      before: ["run", "python3", "-m", expect.any(String)],
    })
    const spaced = join(folder({}), "a b")
    mkdirSync(spaced)
    writeFileSync(join(spaced, "vllm"), "#!/bin/sh\n", { mode: 0o755 })
    expect(found("", join(spaced, "vllm"))).toMatchObject({
      program: join(spaced, "vllm"),
      before: ["serve"],
    })
  })

  test.each([
    [undefined, /vLLM is not found: .*pip install vllm.*--vllm/],
    ["none", /--vllm none: none is no program/],
    [root, /is no program that can be run/],
  ])("%s that is not there is said in one line", (given, message) => {
    expect(() => found(folder({ python3: "exit 1" }), given)).toThrow(message)
  })
})

describe("what it is started with", () => {
  const asked = readVllmArguments([
    "my/model",
    "--seed",
    "1",
    "--additional-config",
    '{"slos_serve": {"name": "e"}}',
  ])
  const options = { port: 1234, socket: "/run/p.sock", classes: ["chat", "code"] }
  const cli = { program: "vllm", before: ["serve"], takesModel: true }

  test("the user's arguments, then ours", () => {
    const { args, environment } = launchOf(cli, asked, options, { PYTHONPATH: "/mine" })
    expect(args.slice(0, 4)).toEqual(["serve", "my/model", "--seed", "1"])
    const after = (flag: string) => args[args.lastIndexOf(flag) + 1]
    expect(after("--scheduler-cls")).toBe("slos_serve_vllm.Scheduler")
    expect(after("--middleware")).toBe("slos_serve_vllm.middleware.SloMiddleware")
    expect([after("--host"), after("--port")]).toEqual(["127.0.0.1", "1234"])
    expect(JSON.parse(after("--additional-config")!)).toEqual({
      slos_serve: { name: "e", socket: "/run/p.sock", start: false },
    })
    expect(environment).toEqual({ PYTHONPATH: `${PLUGIN_FOLDER}:/mine`, SLOS_SERVE_CLASSES: "chat,code" })
  })

  test("its server module is told the model by a flag", () => {
    const module = { program: "python", before: ["-m", "x"], takesModel: false }
    expect(launchOf(module, asked, options, {}).args.slice(0, 4)).toEqual(["-m", "x", "--model", "my/model"])
    expect(launchOf(module, asked, options, {}).environment.PYTHONPATH).toBe(PLUGIN_FOLDER)
  })

  test("its server module passes over a model that is not named first: that is refused", () => {
    const module = { program: "python", before: ["-m", "x"], takesModel: false }
    const late = readVllmArguments(["--seed", "1", "my/model"])
    expect(() => checkModel(module, late)).toThrow(/first of what comes after --/)
    expect(() => checkModel(module, asked)).not.toThrow()
    expect(() => checkModel(cli, late)).not.toThrow()
  })
})
