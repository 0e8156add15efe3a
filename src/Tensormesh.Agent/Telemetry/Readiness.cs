namespace Tensormesh.Agent.Telemetry;

/// <summary>Whether what this agent sees reaches the cluster.</summary>
internal sealed class Readiness(AgentOptions options, TimeProvider time)
{
    private const int MissedHeartbeats = 3;

    private sealed record State(long? ToldAt, string? Fault);

    private volatile State state = new(null, null);

    public void Succeeded() => state = new State(time.GetTimestamp(), null);

    public void Failed(string reason) => state = state with { Fault = reason };

    /// <summary>Null when ready; otherwise what is wrong.</summary>
    public string? Problem()
    {
        var (toldAt, fault) = state;
        var why = fault is null ? "" : $": {fault}";
        if (toldAt is not { } told) return $"the GpuNode {options.NodeName} has not been written yet{why}";
        var silence = time.GetElapsedTime(told);
        return silence > MissedHeartbeats * options.HeartbeatInterval
            ? $"the GpuNode {options.NodeName} has not been written for {silence.TotalSeconds:0} s{why}"
            : null;
    }
}
