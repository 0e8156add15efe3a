using System.Diagnostics.Metrics;

namespace Tensormesh.Billing;

/// <summary>How full this process's pool of the ledger is, as the driver counts it for whoever listens.</summary>
public static class LedgerConnections
{
    private const string Meter = "Npgsql";
    private const string Count = "db.client.connection.count";
    private const string State = "db.client.connection.state";
    private const string Pool = "db.client.connection.pool.name";

    private static readonly Lock Gate = new();
    private static readonly MeterListener Listener = Listen();
    private static int busy;
    private static int idle;

    /// <summary>Lent, and open but not lent. Their sum is at most <c>Maximum Pool Size</c>.</summary>
    public static (int Busy, int Idle) Read()
    {
        lock (Gate)
        {
            (busy, idle) = (0, 0);
            Listener.RecordObservableInstruments();
            return (busy, idle);
        }
    }

    private static MeterListener Listen()
    {
        var listener = new MeterListener
        {
            InstrumentPublished = (instrument, itself) =>
            {
                if (instrument.Meter.Name == Meter && instrument.Name == Count) itself.EnableMeasurementEvents(instrument);
            },
        };
        listener.SetMeasurementEventCallback<int>(Hear);
        listener.Start();
        return listener;
    }

    private static void Hear(Instrument instrument, int count, ReadOnlySpan<KeyValuePair<string, object?>> tags, object? state)
    {
        string? pool = null, how = null;
        foreach (var (name, value) in tags)
        {
            if (name == Pool) pool = value as string;
            else if (name == State) how = value as string;
        }

        if (pool != BillingServices.PoolName) return;
        if (how == "used") busy += count;
        else if (how == "idle") idle += count;
    }
}
