from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from feishu_feed_card import AsyncClient, FeedCardError
from pydantic import BaseModel


class Alert(BaseModel):
    chat: str
    on_call: list[str]
    firing: bool


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # One client for the whole process: its calls share the token, the connections and the quota.
    async with AsyncClient.from_env() as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/alerts")
async def alert(alert: Alert, request: Request) -> dict[str, list[str]]:
    client: AsyncClient = request.app.state.client
    outcome = await client.set_time_sensitive(alert.chat, alert.on_call, alert.firing, timeout=10)
    return {"reached": list(outcome.reached), "failed": list(outcome.failed)}


@app.exception_handler(FeedCardError)
async def failed(request: Request, error: FeedCardError) -> JSONResponse:
    return JSONResponse(error.to_dict(), status_code=503 if error.retryable else 502)
