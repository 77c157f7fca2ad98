/** An endpoint picker just started, and the Envoy that asks it. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { UserError } from "../../../src/errors.ts"
import { Envoy, exampleConfig, findEnvoy } from "../../../test/envoy.ts"

interface Ports {
  gateway: number
  picker: number
  admin: number
  engine: number
}

/** A picker that is passed over would be measured as free. */
const NEVER_WITHOUT = { failure_mode_allow: "false" }

export class PickerBehindEnvoy {
  readonly url: string
  readonly readyMs: number
  readonly #picker: ChildProcess
  readonly #envoy: Envoy

  private constructor(picker: ChildProcess, envoy: Envoy, url: string, readyMs: number) {
    this.#picker = picker
    this.#envoy = envoy
    this.url = url
    this.readyMs = readyMs
  }

  /** Of the picker: Envoy is another's process. */
  get pid(): number {
    return this.#picker.pid!
  }

  static async start(program: string, { gateway, picker, admin, engine }: Ports): Promise<PickerBehindEnvoy> {
    const binary = findEnvoy()
    if (binary === null) throw new UserError("there is no Envoy; bench/get-envoy.sh brings one")
    const own = ["--port", String(picker), "--no-metrics", "--probe-every", "0"]
    const args = [program, "endpoint-picker", ...own, "--endpoint", `127.0.0.1:${engine}`]
    const beganMs = performance.now()
    const child = spawn(process.execPath, args, {
      stdio: ["ignore", "pipe", "inherit"],
      cwd: join(import.meta.dirname, "../../.."),
    })
    process.once("exit", () => child.kill("SIGKILL"))
    await saysReady(child)
    const readyMs = performance.now() - beganMs
    const config = exampleConfig({ gateway, picker, admin, engines: [engine, engine] }, NEVER_WITHOUT)
    const envoy = await Envoy.start(binary, config, admin)
    return new PickerBehindEnvoy(child, envoy, `http://127.0.0.1:${gateway}`, readyMs)
  }

  async stop(): Promise<void> {
    await this.#envoy.close()
    const ended = once(this.#picker, "exit")
    this.#picker.kill("SIGKILL")
    await ended
  }
}

function saysReady(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = ""
    child.stdout!.on("data", (piece: Buffer) => {
      text += piece.toString()
      if (text.includes('"ready"')) resolve()
    })
    child.once("exit", (code) => reject(new Error(`the picker ended with exit code ${code}: ${text}`)))
  })
}
