namespace Tensormesh.Simulation.Tests;

/// <summary>What happens by itself: time, containers, nodes, GPUs.</summary>
internal sealed class MachineActs(Stage stage, Leadership leadership)
{
    /// <summary>Alarms of one stretch of time that an operator is woken by.</summary>
    private const int MostAlarms = 4;

    private readonly World world = stage.World;

    public IEnumerable<Act> All =>
    [
        new(45, "time", () => PassAsync(attentive: true)), new(18, "time unwatched", () => PassAsync(attentive: false)), new(5, "restart container", RestartContainerAsync),
        new(3, "evict", EvictAsync), new(4, "silence", SilenceAsync), new(4, "return", ReturnAsync), new(3, "vanish", VanishAsync), new(4, "gpu fault", FailGpuAsync),
    ];

    private IReadOnlyList<ModelPod> Unharmed => [.. world.Running.Where(pod => pod is { StopsAt: null, DeletionAsked: null })];

    /// <summary>Time passes. An attentive operator wakes at its alarms.</summary>
    private async Task PassAsync(bool attentive)
    {
        var span = TimeSpan.FromMicroseconds(stage.Chance.Next(10) switch
        {
            < 2 => stage.Chance.NextInt64(1, 3_000_000),
            < 5 => stage.Chance.NextInt64(1, 60_000_000),
            < 9 => stage.Chance.NextInt64(1, 900_000_000),
            _ => stage.Chance.NextInt64(1, 5_400_000_000),
        });
        var until = world.Now + span;
        for (var woken = 0; attentive && woken < MostAlarms && leadership.Current.NextAlarm(until) is { } alarm; woken++)
        {
            world.AdvanceTo(alarm.At);
            stage.Tell($"  the alarm of {alarm.Deployment.Name} rings");
            stage.Count("alarm");
            await leadership.SurviveAsync(leader => leader.RoundAsync(alarm.Deployment));
        }

        world.AdvanceTo(until);
    }

    private Task RestartContainerAsync()
    {
        if (Unharmed.Where(pod => pod.RestartedAt is null).ToList() is not { Count: > 0 } pods) return Task.CompletedTask;
        var pod = stage.Pick(pods);
        pod.RestartedAt = World.WholeSecond(world.Now);
        stage.Tell($"  the container of {pod.Name} ended and runs again");
        return Task.CompletedTask;
    }

    private Task EvictAsync()
    {
        if (Unharmed is not { Count: > 0 } pods) return Task.CompletedTask;
        var pod = stage.Pick(pods);
        stage.Tell($"  {pod.Name} fails");
        world.Evict(pod);
        return Task.CompletedTask;
    }

    private Task SilenceAsync()
    {
        if (world.Nodes.Where(node => node.SilentFrom is null).ToList() is not { Count: > 0 } heard) return Task.CompletedTask;
        var node = stage.Pick(heard);
        stage.Tell($"  {node.Name} falls silent");
        stage.Count("silent node");
        world.Silence(node);
        return Task.CompletedTask;
    }

    private Task ReturnAsync()
    {
        foreach (var node in world.Nodes.Where(node => node.SilentFrom is not null)) stage.Tell($"  {node.Name} {(world.TryReturn(node) ? "comes back" : "does not come back")}");
        return Task.CompletedTask;
    }

    private Task VanishAsync()
    {
        var pods = Unharmed;
        if (pods.Count == 0) return Task.CompletedTask;
        var pod = stage.Pick(pods);
        var deployment = world.Deployments.First(each => each.There.Contains(pod));
        stage.Tell($"  {pod.Name} is deleted by force");
        stage.Count("vanished pod");
        world.Vanish(deployment, pod, told: stage.OneIn(2));
        // Its watch tells the operator at once: nothing is settled in between.
        return leadership.SurviveAsync(leader => leader.RoundAsync(deployment));
    }

    private Task FailGpuAsync()
    {
        if (world.Running.Where(pod => pod.GpuFaultSeenAt is null).ToList() is { Count: > 0 } pods)
        {
            var pod = stage.Pick(pods);
            (pod.GpuFaultSeenAt, pod.GpuWellUntil) = (world.Now, world.Now.AddSeconds(-stage.Chance.Next(0, 90)));
            stage.Tell($"  a GPU of {pod.Name} failed, and was last seen well at {pod.GpuWellUntil:HH:mm:ss.ffffff}");
            stage.Count("gpu fault");
        }

        return leadership.SurviveAsync(leader => leader.TellOfGpusAsync());
    }
}
