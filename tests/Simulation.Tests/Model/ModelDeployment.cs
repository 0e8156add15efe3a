using System.Globalization;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Resources;

namespace Tensormesh.Simulation.Tests;

/// <summary>A GpuDeployment as the API server has it, with its child and its pods.</summary>
internal sealed class ModelDeployment
{
    public required string Name { get; init; }
    public required Guid Uid { get; init; }
    /// <summary>The namespace is the deployment's own: its label names the payer.</summary>
    public string Namespace => Name;
    public required AccountId Account { get; set; }
    public required GpuProduct Product { get; init; }
    public required int Replicas { get; set; }
    public required int Gpus { get; set; }
    public bool Paused { get; set; }
    public Money? MaxTotalCost { get; set; }

    public long Version { get; set; } = 1;
    public bool HasFinalizer { get; set; }
    public DateTimeOffset? DeletionAsked { get; set; }
    /// <summary>The API server has it no more.</summary>
    public bool Gone { get; set; }
    public GpuProduct? ReportedProduct { get; set; }

    public V1Deployment? Child { get; set; }
    public long ChildGeneration { get; set; }
    /// <summary>Every pod that it ever had.</summary>
    public List<ModelPod> Pods { get; } = [];
    /// <summary>Pods that the API server still has.</summary>
    public List<ModelPod> There { get; } = [];

    public DeploymentId Id => new(Uid);

    public string Describe() => $"{Replicas} x {Gpus} {Product}{(Paused ? ", paused" : "")}{(MaxTotalCost is { } most ? $", at most {most.ToDecimalString()}" : "")}"
        + (DeletionAsked is null ? "" : ", deleted");

    public int ChildReplicas => Child?.Spec.Replicas ?? 0;
    /// <summary>GPUs that the child stands for.</summary>
    public int ChildGpus => Child is null ? 0 : ChildReplicas * PodGpus.Of(Child.Spec.Template.Spec);

    /// <summary>A copy: what was seen does not change when the model does.</summary>
    public GpuDeployment Render() => new()
    {
        Metadata = new V1ObjectMeta
        {
            Name = Name,
            NamespaceProperty = Namespace,
            Uid = Uid.ToString(),
            Generation = 1,
            ResourceVersion = Version.ToString(CultureInfo.InvariantCulture),
            DeletionTimestamp = DeletionAsked?.UtcDateTime,
            Finalizers = HasFinalizer ? [WellKnown.MeteringFinalizer] : [],
        },
        Spec = new GpuDeploymentSpec
        {
            Replicas = Replicas,
            Paused = Paused,
            Gpu = new GpuRequirement { Count = Gpus, Product = Product.Name },
            Budget = MaxTotalCost is { } most ? new GpuBudget { MaxTotalCost = most.ToDecimalString() } : null,
            Template = new V1PodTemplateSpec { Spec = new V1PodSpec { Containers = [new V1Container { Name = "main", Image = "workload" }] } },
        },
        Status = new GpuDeploymentStatus { GpuProduct = ReportedProduct?.Name },
    };
}
