/** Opens an HTTP port; what is in its way is one line that names the option. */
import type { FastifyInstance } from "fastify"
import { UserError, userError } from "../errors.ts"

export async function listen(
  app: FastifyInstance,
  { host, port }: { host: string; port: number },
  option: string,
): Promise<void> {
  try {
    await app.listen({ host, port })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === "EADDRINUSE") throw userError("port_in_use", { host, port, option })
    if (code === undefined || error instanceof UserError) throw error
    throw userError("cannot_listen", { host, port, option, detail: code ?? message }, { cause: error })
  }
}
