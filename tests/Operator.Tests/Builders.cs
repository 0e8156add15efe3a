using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Tests;

/// <summary>Observations in a line: what each test says differs from a deployment of two replicas with two H100 each, well paid for.</summary>
internal static class A
{
    public static readonly DateTimeOffset Noon = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);
    public static readonly AccountId Acme = new("acme");
    public static readonly DeploymentId Trainer = new(Guid.Parse("11111111-1111-1111-1111-111111111111"));
    public static readonly GpuProduct H100 = new("NVIDIA-H100-80GB-HBM3");
    public static readonly GpuProduct L40S = new("NVIDIA-L40S");
    public static readonly CreditPolicy Policy = new();

    public static readonly GpuInventory Cluster = new(
    [
        new GpuModel(H100, 81559, (9, 0), 8, 8, 8),
        new GpuModel(L40S, 46068, (8, 9), 4, 4, 4),
    ], []);

    public static readonly IReadOnlyDictionary<GpuProduct, GpuPrice> Prices = new Dictionary<GpuProduct, GpuPrice>
    {
        [H100] = new(new PriceVersionId(1), H100, Money.Parse("2.50"), Noon.AddDays(-30)),
        [L40S] = new(new PriceVersionId(2), L40S, Money.Parse("0.90"), Noon.AddDays(-30)),
    };

    public static GpuDeployment Deployment(int replicas = 2, int gpus = 2, string? product = "NVIDIA-H100-80GB-HBM3", bool paused = false) => new()
    {
        Metadata = new V1ObjectMeta
        {
            Name = "trainer",
            NamespaceProperty = "team-a",
            Uid = Trainer.ToString(),
            Generation = 1,
            Finalizers = [WellKnown.MeteringFinalizer],
        },
        Spec = new GpuDeploymentSpec
        {
            Replicas = replicas,
            Paused = paused,
            Gpu = new GpuRequirement { Count = gpus, Product = product },
            Template = new V1PodTemplateSpec { Spec = new V1PodSpec { Containers = [new V1Container { Name = "main", Image = "workload" }] } },
        },
    };

    public static CardsOnFile Cards(bool valid = true) => valid
        ? new CardsOnFile([new Card("pm_card_visa", "visa", "4242", 12, 2030, true, Noon.AddDays(-10))], null)
        : new CardsOnFile([], null);

    public static CreditHold Hold(int gpus = 4, GpuProduct? product = null, decimal remaining = 10m) => new(
        Trainer, Acme, product ?? H100, gpus, Money.Parse("2.50"), new Money((long)(remaining * Money.NanosPerUnit)), Noon.AddMinutes(-1));

    public static AccruingInterval Interval(Guid pod, int gpus = 2, DateTimeOffset? since = null) => new(
        new PodId(pod), Trainer, H100, gpus, Money.Parse("2.50"), since ?? Noon.AddSeconds(-30), Money.Zero, since ?? Noon.AddSeconds(-30));

    public static DeploymentStanding Standing(decimal posted = 100m, CreditHold? hold = null, bool card = true, params AccruingInterval[] intervals) => new(
        new Standing
        {
            Account = Acme,
            Policy = new AccountPolicy("Acme", null, null, "UTC"),
            Posted = new Money((long)(posted * Money.NanosPerUnit)),
            Cards = Cards(card),
            Intervals = intervals,
            Holds = hold is null ? [] : [hold],
        },
        Trainer, hold, Money.Zero);

    public static Observation Seen(
        GpuDeployment? deployment = null, DeploymentStanding? standing = null, V1Deployment? child = null, AppliedChild? applied = null,
        IReadOnlyList<V1Pod>? pods = null, IReadOnlyList<OpenRun>? runs = null, AccountId? account = null, bool noAccount = false, bool ledgerDown = false,
        GpuInventory? cluster = null, DateTimeOffset? now = null, bool nameTaken = false, RefusedChild? refused = null)
        => new()
        {
            Deployment = deployment ?? Deployment(),
            Account = noAccount ? null : account ?? Acme,
            Child = child,
            Applied = applied,
            Refused = refused,
            NameTaken = nameTaken,
            Pods = [.. (pods ?? []).Select(pod => PodRun.From(pod, nodeExists: true, now ?? Noon))],
            Gpus = cluster ?? Cluster,
            Ledger = ledgerDown ? new LedgerView.Unavailable("The ledger cannot be read right now.") : new LedgerView.Known(standing, runs ?? [], Prices),
            Now = now ?? Noon,
        };

    /// <summary>The child as the server would hold it after our own apply.</summary>
    public static (V1Deployment Child, AppliedChild Applied) Child(GpuDeployment deployment, int replicas, GpuProduct? product = null)
    {
        var child = PodTemplate.Render(deployment, product ?? H100, replicas);
        child.Metadata.Uid = "22222222-2222-2222-2222-222222222222";
        child.Metadata.Generation = 1;
        return (child, new AppliedChild(child.Metadata.Annotations[WellKnown.RenderedHashAnnotation], 1));
    }

    public static V1Pod Pod(Guid uid, string name = "trainer-1", DateTimeOffset? started = null, DateTimeOffset? finished = null, DateTimeOffset? deleted = null, long? grace = null, bool ready = true, string? phase = null, bool finalizer = true, int gpus = 2)
    {
        var state = finished is { } end
            ? new V1ContainerState { Terminated = new V1ContainerStateTerminated { StartedAt = started?.UtcDateTime, FinishedAt = end.UtcDateTime, ExitCode = 0 } }
            : started is { } begin
                ? new V1ContainerState { Running = new V1ContainerStateRunning { StartedAt = begin.UtcDateTime } }
                : new V1ContainerState { Waiting = new V1ContainerStateWaiting { Reason = "ContainerCreating" } };
        return new V1Pod
        {
            Metadata = new V1ObjectMeta
            {
                Name = name,
                NamespaceProperty = "team-a",
                Uid = uid.ToString(),
                DeletionTimestamp = deleted?.UtcDateTime,
                DeletionGracePeriodSeconds = grace,
                Finalizers = finalizer ? [WellKnown.MeteringFinalizer] : null,
                Annotations = new Dictionary<string, string> { [WellKnown.GpuContainerAnnotation] = "main" },
            },
            Spec = new V1PodSpec
            {
                NodeName = "gpu-a",
                Containers = [new V1Container { Name = "main", Resources = new V1ResourceRequirements { Limits = new Dictionary<string, ResourceQuantity> { [WellKnown.GpuResource] = new($"{gpus}") } } }],
            },
            Status = new V1PodStatus
            {
                Phase = phase ?? (started is null ? "Pending" : "Running"),
                ContainerStatuses = [new V1ContainerStatus { Name = "main", State = state, Image = "", ImageID = "", RestartCount = 0, Ready = ready }],
                Conditions = [new V1PodCondition { Type = "Ready", Status = ready && started is not null && finished is null ? "True" : "False" }],
            },
        };
    }
}
