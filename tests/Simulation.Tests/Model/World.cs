using k8s.Models;
using Microsoft.Extensions.Time.Testing;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Resources;

namespace Tensormesh.Simulation.Tests;

/// <summary>
/// A cluster in a few lists: what the Deployment controller, the scheduler, the kubelets, the node controller and the garbage collector do to the objects
/// that the operator looks at. It moves only when its clock does, and draws what chance decides from the story's own numbers.
/// </summary>
internal sealed class World(Random chance, DateTimeOffset start)
{
    private readonly List<ModelNode> nodes = [new("n1"), new("n2")];
    private int pods;
    private int made = 2;

    public FakeTimeProvider Time { get; } = new(start);
    public DateTimeOffset Now => Time.GetUtcNow();
    public List<ModelDeployment> Deployments { get; } = [];
    /// <summary>A pod is in the cluster no more: whoever watches notes when.</summary>
    public event Action<ModelPod>? Departed;

    public IEnumerable<ModelDeployment> Present => Deployments.Where(deployment => !deployment.Gone);
    public IReadOnlyList<ModelDeployment> Kept => [.. Present.Where(deployment => deployment.DeletionAsked is null)];
    public IReadOnlyList<ModelNode> Nodes => nodes;
    public IEnumerable<ModelPod> Running => Deployments.SelectMany(deployment => deployment.There)
        .Where(pod => pod is { StartedAt: not null, FinishedAt: null, Node.SilentFrom: null });

    public bool HasNode(ModelNode node) => nodes.Contains(node);

    public Guid NewUid()
    {
        Span<byte> bytes = stackalloc byte[16];
        chance.NextBytes(bytes);
        return new Guid(bytes);
    }

    /// <summary>Lets time pass, and whatever falls due in it happen at its own instant.</summary>
    public void AdvanceTo(DateTimeOffset until)
    {
        while (NextDue() is { } due && due <= until)
        {
            if (due > Now) Time.SetUtcNow(due);
            foreach (var node in nodes.ToList()) Watch(node);
            foreach (var deployment in Deployments)
            {
                foreach (var pod in deployment.There.ToList()) Run(deployment, pod);
            }

            Control();
        }

        if (until > Now) Time.SetUtcNow(until);
        Control();
    }

    /// <summary>The Deployment controller and the garbage collector: pods are as many as the child says, and nothing outlives its owner.</summary>
    public void Control()
    {
        foreach (var deployment in Deployments)
        {
            if (deployment.Gone && deployment.Child is not null) DeleteChild(deployment);
            if (deployment.Child is not { } child) continue;
            var shape = Shape(child);
            var live = deployment.There.Where(pod => pod.IsLive).ToList();
            foreach (var pod in live.Where(pod => pod.Shape != shape).Take(1).Concat(live.Where(pod => pod.Shape == shape)
                .Skip(Math.Max(0, deployment.ChildReplicas - live.Count(pod => pod.Shape != shape)))).ToList()) Delete(deployment, pod);
            for (var count = deployment.There.Count(pod => pod.IsLive); count < deployment.ChildReplicas; count++) AddPod(deployment, child, shape);
        }
    }

    public void ApplyChild(ModelDeployment deployment, V1Deployment rendered)
    {
        var same = deployment.Child is { } before && PodDrift.Hash(before) == PodDrift.Hash(rendered);
        if (!same) deployment.ChildGeneration++;
        deployment.Child = new V1Deployment
        {
            ApiVersion = "apps/v1",
            Kind = "Deployment",
            Metadata = new V1ObjectMeta
            {
                Name = rendered.Metadata.Name,
                NamespaceProperty = rendered.Metadata.NamespaceProperty,
                Uid = deployment.Child?.Metadata.Uid ?? NewUid().ToString(),
                Generation = deployment.ChildGeneration,
                Annotations = rendered.Metadata.Annotations,
                Labels = rendered.Metadata.Labels,
                OwnerReferences = rendered.Metadata.OwnerReferences,
            },
            Spec = rendered.Spec,
        };
        Control();
    }

    public void DeleteChild(ModelDeployment deployment)
    {
        deployment.Child = null;
        foreach (var pod in deployment.There.ToList()) Delete(deployment, pod);
    }

    public void DeleteObject(ModelDeployment deployment)
    {
        if (deployment.DeletionAsked is not null || deployment.Gone) return;
        (deployment.DeletionAsked, deployment.Version) = (WholeSecond(Now), deployment.Version + 1);
        if (!deployment.HasFinalizer) LetGo(deployment);
    }

    public void LetGo(ModelDeployment deployment)
    {
        deployment.Gone = true;
        Control();
    }

    public void Delete(ModelDeployment deployment, ModelPod pod)
    {
        if (pod.DeletionAsked is not null || pod.VanishedAt is not null) return;
        pod.DeletionAsked = WholeSecond(Now);
        pod.StartsAt = null;
        var heard = pod.Node.SilentFrom is null;
        var runs = pod is { StartedAt: not null, FinishedAt: null };
        // A kubelet that hears of it confirms at once what does not run.
        pod.Grace = heard && !runs ? 0 : ModelPod.TermGraceSeconds;
        if (heard && runs) pod.StopsAt = Now.AddSeconds(pod.IgnoresTerm ? ModelPod.TermGraceSeconds : chance.Next(0, 6));
        RemoveIfDone(deployment, pod);
    }

    public void ReleasePod(ModelDeployment deployment, ModelPod pod)
    {
        pod.HasFinalizer = false;
        RemoveIfDone(deployment, pod);
    }

    /// <summary>Somebody takes off the finalizer and deletes by force.</summary>
    /// <param name="told">The kubelet tells of the killing, in whole seconds; otherwise only those who watch know when.</param>
    public void Vanish(ModelDeployment deployment, ModelPod pod, bool told)
    {
        (pod.VanishedAt, pod.KillingTold, pod.HasFinalizer, pod.StartsAt) = (told ? WholeSecond(Now) : Now, told, false, null);
        if (pod.VanishedAt < pod.StartedAt) pod.VanishedAt = pod.StartedAt;
        Remove(deployment, pod);
        Control();
    }

    /// <summary>The kubelet is short of memory: the pod fails, and another takes its place.</summary>
    public void Evict(ModelPod pod)
    {
        (pod.Failed, pod.FinishedAt, pod.StopsAt) = (true, WholeSecond(Now), null);
        if (pod.FinishedAt < pod.StartedAt) pod.FinishedAt = pod.StartedAt;
        Control();
    }

    public void Silence(ModelNode node)
    {
        node.SilentFrom = Now;
        if (nodes.All(other => other.SilentFrom is not null)) nodes.Add(new ModelNode($"n{++made}"));
    }

    /// <summary>A node that comes back in time finds its containers as they were. One whose pods were told to stop meanwhile is lost for good.</summary>
    public bool TryReturn(ModelNode node)
    {
        if (node.PodsGivenUp || PodsOn(node).Any(pod => pod.DeletionAsked is not null)) return false;
        (node.SilentFrom, node.MarkedAt) = (null, null);
        foreach (var pod in PodsOn(node).Where(pod => pod.StartsAt < Now)) pod.StartsAt = Now;
        return true;
    }

    /// <summary>Nodes that are lost for good, and of whose pods all is recorded, leave the cluster with what is left on them.</summary>
    public void RemoveLostNodes()
    {
        foreach (var node in nodes.Where(node => node.PodsGivenUp && PodsOn(node).All(pod => !pod.HasFinalizer)).ToList())
        {
            nodes.Remove(node);
            foreach (var deployment in Deployments)
            {
                foreach (var pod in deployment.There.Where(pod => pod.Node == node).ToList()) Remove(deployment, pod);
            }
        }
    }

    public static DateTimeOffset WholeSecond(DateTimeOffset t) => new(t.UtcTicks / TimeSpan.TicksPerSecond * TimeSpan.TicksPerSecond, TimeSpan.Zero);

    private static string Shape(V1Deployment child)
    {
        var product = child.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0]
            .MatchExpressions.Last(requirement => requirement.Key == WellKnown.GpuProductLabel).Values[0];
        return $"{PodGpus.Of(child.Spec.Template.Spec)} x {product}";
    }

    private IEnumerable<ModelPod> PodsOn(ModelNode node) => Deployments.SelectMany(deployment => deployment.There).Where(pod => pod.Node == node);

    private void AddPod(ModelDeployment deployment, V1Deployment child, string shape)
    {
        var heard = nodes.Where(node => node.SilentFrom is null).ToList();
        var pod = new ModelPod
        {
            Name = $"{deployment.Name}-{++pods}",
            Uid = NewUid(),
            Namespace = deployment.Namespace,
            Template = child.Spec.Template,
            Shape = shape,
            Gpus = PodGpus.Of(child.Spec.Template.Spec),
            Node = heard[chance.Next(heard.Count)],
            IgnoresTerm = chance.Next(4) == 0,
            // Most images are there; some take long to come, and some never do.
            StartsAt = chance.Next(10) switch { 0 => null, < 3 => Now.AddSeconds(chance.Next(10, 300)), _ => Now.AddMilliseconds(chance.Next(0, 8_000)) },
        };
        deployment.Pods.Add(pod);
        deployment.There.Add(pod);
    }

    private DateTimeOffset? NextDue()
    {
        var due = nodes.Select(NextDue).Concat(Deployments.SelectMany(deployment => deployment.There).Where(pod => pod.Node.SilentFrom is null)
            .SelectMany(pod => (DateTimeOffset?[])[pod.StartsAt, pod.StopsAt]));
        return due.Min();
    }

    private static DateTimeOffset? NextDue(ModelNode node) => node switch
    {
        { SilentFrom: null } or { PodsGivenUp: true } => null,
        { SilentFrom: { } silent, MarkedAt: null } => silent + ModelNode.MarkedAfter,
        { MarkedAt: { } marked } => marked + ModelNode.GivenUpAfter,
    };

    private void Watch(ModelNode node)
    {
        if (NextDue(node) is not { } due || due > Now) return;
        if (node.MarkedAt is null)
        {
            node.MarkedAt = WholeSecond(Now);
            return;
        }

        node.PodsGivenUp = true;
        foreach (var deployment in Deployments)
        {
            foreach (var pod in deployment.There.Where(pod => pod.Node == node).ToList()) Delete(deployment, pod);
        }
    }

    private void Run(ModelDeployment deployment, ModelPod pod)
    {
        if (pod.Node.SilentFrom is not null) return;
        if (pod.StartsAt <= Now) (pod.StartedAt, pod.StartsAt) = (WholeSecond(pod.StartsAt.Value), null);
        if (!(pod.StopsAt <= Now)) return;
        var stopped = WholeSecond(pod.StopsAt.Value);
        (pod.FinishedAt, pod.StopsAt) = (stopped < pod.StartedAt ? pod.StartedAt : stopped, null);
        if (pod.RestartedAt > pod.FinishedAt) pod.FinishedAt = pod.RestartedAt;
        RemoveIfDone(deployment, pod);
    }

    private void RemoveIfDone(ModelDeployment deployment, ModelPod pod)
    {
        if (!pod.HasFinalizer && pod.DeletionAsked is not null && (pod.StartedAt is null || pod.FinishedAt is not null) && pod.Node.SilentFrom is null) Remove(deployment, pod);
    }

    private void Remove(ModelDeployment deployment, ModelPod pod)
    {
        if (deployment.There.Remove(pod)) Departed?.Invoke(pod);
    }
}
