/** A real Envoy for tests and benches: found where bench/get-envoy.sh puts it, started with a configuration in a folder of
 * its own, and ended with its process. */
import { type ChildProcess, spawn } from "node:child_process"
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { cacheFolder } from "../src/models/cache.ts"

/** Path of the binary: of the variable ENVOY, or in the cache; null where there is none. */
export function findEnvoy(): string | null {
  const path = process.env.ENVOY || join(cacheFolder(), "envoy", "envoy-1.40.0")
  try {
    accessSync(path, constants.X_OK)
    return path
  } catch {
    return null
  }
}

export interface EnvoyPorts {
  gateway: number
  picker: number
  engines: readonly [number, number]
  admin: number
}

/** examples/envoy.yaml with ports of its own and, if need be, other modes. */
export function exampleConfig(ports: EnvoyPorts, modes: Readonly<Record<string, string>> = {}): string {
  const file = new URL("../examples/envoy.yaml", import.meta.url)
  let text = readFileSync(file, "utf8")
  const given: Record<string, number> = {
    8080: ports.gateway,
    9002: ports.picker,
    8000: ports.engines[0],
    8001: ports.engines[1],
    9901: ports.admin,
  }
  text = text.replace(/port_value: (\d+)/g, (_, port: string) => `port_value: ${given[port]}`)
  for (const [mode, value] of Object.entries(modes))
    text = text.replace(new RegExp(`${mode}: \\w+`), `${mode}: ${value}`)
  return text
}

export class Envoy {
  readonly #process: ChildProcess
  readonly #folder: string

  private constructor(process: ChildProcess, folder: string) {
    this.#process = process
    this.#folder = folder
  }

  get pid(): number {
    return this.#process.pid!
  }

  /** Resolves when it serves. */
  static async start(binary: string, config: string, admin: number): Promise<Envoy> {
    const folder = mkdtempSync(join(tmpdir(), "slos-serve-envoy-"))
    const path = join(folder, "envoy.yaml")
    writeFileSync(path, config)
    const args = ["-c", path, "--log-level", "error", "--use-dynamic-base-id", "--concurrency", "1"]
    const child = spawn(binary, args, { stdio: ["ignore", "ignore", "inherit"] })
    const envoy = new Envoy(child, folder)
    for (;;) {
      if (child.exitCode !== null) throw new Error(`Envoy ended with exit code ${child.exitCode}`)
      const ready = await fetch(`http://127.0.0.1:${admin}/ready`).then(
        (response) => response.status,
        () => 0,
      )
      if (ready === 200) return envoy
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve))
    this.#process.kill("SIGKILL")
    await ended
    rmSync(this.#folder, { recursive: true, force: true })
  }
}
