/** Whether a systemd waits to be told how the server is. */
import type { Reporter } from "./reporter.ts"
import type { Systemd } from "./systemd.ts"

/** Loaded only where one does. */
export async function systemdOf(reporter: Reporter): Promise<Systemd | null> {
  if (process.env.NOTIFY_SOCKET === undefined) return null
  const { Systemd } = await import("./systemd.ts")
  return Systemd.of(process.env, (message) => reporter.warn(message))
}
